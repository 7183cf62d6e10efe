//! Every limit of this crate, in one place, with the reason for its size.

use std::time::Duration;

/// Largest payload that is sent in one stanza, in bytes on the wire.
/// A stanza over the limit of the server ends the stream; Debian's servers allow 256 kB.
pub const PAYLOAD_BYTES_MAX: usize = 128 * 1024;

/// Largest stanza: a payload, and what is around it.
pub const STANZA_BYTES_MAX: usize = PAYLOAD_BYTES_MAX + 4 * 1024;

/// Deepest nesting of a payload; what is deeper is no payload of ours.
pub const PAYLOAD_DEPTH_MAX: usize = 32;

/// Commands that wait for the session task. A full queue is reported to the caller.
pub const COMMANDS_MAX: usize = 1024;

/// Commands that are taken in one turn before the socket is served again.
pub(crate) const COMMANDS_PER_TURN: usize = 64;

/// Stanzas that wait for the socket; above it no commands are taken.
pub(crate) const OUTBOX_MAX: usize = 256;

/// Stanzas that wait for the socket; above it requests of others stay unanswered.
pub(crate) const OUTBOX_ANSWERS_MAX: usize = 2 * OUTBOX_MAX;

/// Events that wait for a group. When it is full, events are dropped and counted.
pub const EVENTS_MAX: usize = 4096;

/// Bytes of stored messages that wait for a group: as text, and above it they are dropped and counted. More
/// than a hundred of [`PAYLOAD_BYTES_MAX`], which is what a server keeps.
pub const STORED_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Bytes of those of them that are among the events already: as trees, which take 25 times that.
pub(crate) const STORED_READY_MAX: usize = 2 * 1024 * 1024;

/// Messages for rooms whose group is not attached yet, of all rooms together: number, bytes, and time. Anybody
/// can send them.
pub(crate) const HELD_MAX: usize = 1024;
pub(crate) const HELD_BYTES_MAX: usize = STORED_BYTES_MAX;
pub(crate) const HELD_FOR: Duration = Duration::from_secs(60);

/// How often a group that has lost events is asked whether it has room again.
pub(crate) const LOST_RETRY: Duration = Duration::from_millis(50);

/// IQs of ours without an answer, of all groups together.
pub const IQS_MAX: usize = 2048;

/// Time for an answer to an IQ that the link sends for itself (rooms, nodes, services).
pub(crate) const IQ_TIMEOUT: Duration = Duration::from_secs(20);

/// Time for the answer to a publish.
pub(crate) const PUBLISH_TIMEOUT: Duration = Duration::from_secs(30);

/// Time for the connection to one address.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Time for one query to the name servers, and how often it is sent.
pub(crate) const DNS_TIMEOUT: Duration = Duration::from_secs(2);
pub(crate) const DNS_ATTEMPTS: usize = 2;

/// Time for the way from the first byte to the bound resource.
pub(crate) const LOGIN_TIMEOUT: Duration = Duration::from_secs(30);

/// Silence after which the server is asked whether it is still there …
pub(crate) const PING_AFTER: Duration = Duration::from_secs(25);
/// … and the silence after that which ends the connection.
pub(crate) const PING_ANSWER: Duration = Duration::from_secs(20);

/// Bytes after which the server is asked whether it has read them: more than a few changes, and less than a throttled
/// server takes a minute for.
pub(crate) const MARK_EVERY: u64 = 16 * 1024;

/// Such questions without an answer; a socket takes some megabytes ahead.
pub(crate) const MARKS_MAX: usize = 256;

/// Bytes per second below which a server is called slow. Debian's take 3,000 (ejabberd) and 10,000 (prosody) of a
/// client; without a throttle it is megabytes.
pub(crate) const SLOW_BELOW: u64 = 32 * 1024;
/// … for so long, and over so many answers in a row: a server that hangs once is not meant.
pub(crate) const SLOW_FOR: Duration = Duration::from_secs(10);
pub(crate) const SLOW_MARKS: u32 = 3;

/// Back-off of connections.
pub(crate) const RECONNECT_MIN: Duration = Duration::from_millis(250);
pub(crate) const RECONNECT_MAX: Duration = Duration::from_secs(30);

/// A connection that lived so long starts the back-off anew; one that is lost sooner (a server that accepts
/// and then fails) does not.
pub(crate) const RECONNECT_STABLE: Duration = Duration::from_secs(10);

/// Back-off after somebody else logged in with the same full JID: two such clients end each other's
/// connection after the other's wait, so that the waits alone decide how hot they do it.
pub(crate) const CONFLICT_MIN: Duration = Duration::from_secs(10);
pub(crate) const CONFLICT_MAX: Duration = Duration::from_secs(120);

/// A connection that lived so long starts that back-off anew; longer than the longest wait of the other.
pub(crate) const CONFLICT_STABLE: Duration = Duration::from_secs(300);

/// Wait after the server refused the password: a wrong password does not get right by trying, and
/// servers ban addresses that try.
pub const WRONG_PASSWORD_WAIT: Duration = Duration::from_secs(300);

/// First wait where the server took it before: it may have been started a moment ago, and answer before it has read its accounts.
/// It doubles, so that there are 18 attempts in an hour: Debian's ejabberd bans an address after 20.
pub(crate) const WRONG_PASSWORD_MIN: Duration = Duration::from_secs(4);

/// Back-off of joins that were refused or not answered.
pub(crate) const JOIN_MIN: Duration = Duration::from_millis(200);
pub(crate) const JOIN_MAX: Duration = Duration::from_secs(45);

/// Time for the own presence to come back from the room.
pub(crate) const JOIN_TIMEOUT: Duration = Duration::from_secs(15);

/// A stay in the room that long starts the back-off of joins anew.
pub(crate) const JOIN_STABLE: Duration = Duration::from_secs(60);

/// Refused joins before a cause that usually passes (locked room, own ghost) is reported.
pub(crate) const JOIN_QUIET_ATTEMPTS: u32 = 4;

/// How often the room is asked whether we are still in it (XEP-0410).
pub(crate) const SELF_PING_EVERY: Duration = Duration::from_secs(60);

/// Occupants that are remembered per room. Their cards have to fit into the channel of events at once when
/// the state is told anew after a loss.
pub(crate) const OCCUPANTS_MAX: usize = 1_500;
const _: () = assert!(OCCUPANTS_MAX + 64 < EVENTS_MAX / 2);

/// Back-off of the set-up of the own pubsub node and of subscriptions.
pub(crate) const NODE_MIN: Duration = Duration::from_secs(1);
pub(crate) const NODE_MAX: Duration = Duration::from_secs(60);

/// Refused subscriptions before it is reported: the peer may list us a moment later.
pub(crate) const SUBSCRIBE_QUIET_ATTEMPTS: u32 = 4;

/// How often the subscribers of the own node are counted.
pub(crate) const OUTSIDERS_EVERY: Duration = Duration::from_secs(60);
/// The pause when the service did not tell.
pub(crate) const OUTSIDERS_RETRY: Duration = Duration::from_secs(5);

/// Nodes of peers that one group subscribes to.
pub(crate) const SUBSCRIPTIONS_MAX: usize = 4096;

/// A stranger is reported once in that time, and so many strangers are told apart.
pub(crate) const STRANGER_EVERY: Duration = Duration::from_secs(60);
pub(crate) const STRANGERS_MAX: usize = 256;

/// Time for leaving when all handles were dropped without a call of `close`.
pub(crate) const DROP_CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Transfers that one group serves at once; further offers are refused to their caller.
pub const TRANSFERS_OUT_MAX: usize = 4;

/// Transfers that one group takes at once; further offers of peers are refused.
pub const TRANSFERS_IN_MAX: usize = 4;

/// Bytes of the file in one encrypted frame.
pub const FRAME_BYTES_MAX: usize = 64 * 1024;

/// Frames of a file that wait between disk and network.
pub(crate) const FRAMES_AHEAD_MAX: usize = 8;

/// Decrypted pieces that wait for the reader of a file; the sender is held back behind them.
pub(crate) const CHUNKS_MAX: usize = 8;

/// Bytes in one stanza of an in-band bytestream, before base64.
pub(crate) const IBB_BLOCK_BYTES: usize = 32 * 1024;

/// The smallest block of an in-band bytestream that a sender may ask for.
pub(crate) const IBB_BLOCK_BYTES_MIN: usize = 1024;

/// Stanzas of an in-band bytestream without an answer.
pub(crate) const IBB_WINDOW: usize = 16;

/// Stanzas of a peer that wait for a transfer: a full window, and what is said about the session.
pub(crate) const TRANSFER_INBOX_MAX: usize = 2 * IBB_WINDOW;

/// Time for a peer's answer to an offer: its application decides within it.
pub(crate) const TRANSFER_ACCEPT_TIMEOUT: Duration = Duration::from_secs(30);

/// Time for one step of a peer while the transport is agreed upon.
pub(crate) const TRANSFER_STEP_TIMEOUT: Duration = Duration::from_secs(15);

/// Time for the attempts to reach the peer's addresses, all at once.
pub(crate) const TRANSFER_CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// A receiver that waits so long for the next byte gives up.
pub const TRANSFER_IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// A sender waits longer: a receiver that writes to a database may hold it back.
pub const TRANSFER_HELD_TIMEOUT: Duration = Duration::from_secs(120);

/// Candidates that a peer may name.
pub(crate) const CANDIDATES_MAX: usize = 16;

/// Own addresses that are named to a peer.
pub(crate) const DIRECT_CANDIDATES_MAX: usize = 4;

/// Connections to the port of a transfer that have not said who they are.
pub(crate) const KNOCKS_MAX: usize = 8;

/// Services of the own server that are asked whether they are a SOCKS5 proxy.
pub(crate) const PROXY_SEARCH_MAX: usize = 32;

/// Characters of what a peer says of the end of a transfer that are kept for errors and logs.
pub(crate) const TRANSFER_REASON_MAX: usize = 200;

/// Bytes of a file's id and name.
pub const FILE_NAME_BYTES_MAX: usize = 1024;
