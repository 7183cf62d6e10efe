//! Every limit of the node.

use std::time::Duration;

/// Bytes of captured changes that wait for the driver. Beyond it the replica gives up its stream and begins a
/// new one; the peers have to catch up.
pub const CAPTURED_BYTES_MAX: usize = 128 * 1024 * 1024;
/// Bytes of changes that wait to be applied. Beyond it they are dropped and pulled later.
pub const APPLY_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Changes in one transaction of the database.
pub const TRANSACTION_CHANGES_MAX: usize = 1_000;
/// Bytes of changes in one transaction of the database.
pub const TRANSACTION_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Changes whose entry or parent is not there (yet) that are kept to be tried again.
pub const WAITING_CHANGES_MAX: usize = 1_000;
/// Attempts after which it is found out whether the change or the database is at fault.
pub const TEMPORARY_ATTEMPTS: u32 = 10;
/// Pause after the first failure that may pass; it grows by as much with each.
pub const TEMPORARY_PAUSE: Duration = Duration::from_secs(1);
/// Longest such pause.
pub const TEMPORARY_PAUSE_MAX: Duration = Duration::from_secs(30);
/// Pause after a bug ended the task that applies changes: it may happen again.
pub const PANIC_PAUSE: Duration = Duration::from_secs(30);
/// How long a captured change is held back before slapd's pending CSNs are read again.
pub const COMMIT_ORDER_PAUSE: Duration = Duration::from_millis(1);
/// How often what slapd notes of binds is sent, where nothing else is: it is exact to a second anyway, and a program that binds
/// some hundred times a second must not make as many changes of it.
pub const BOOKKEEPING_PAUSE: Duration = Duration::from_secs(1);
/// Bytes of it that are held back for that.
pub const BOOKKEEPING_BYTES_MAX: usize = 1024 * 1024;
/// How long one operation may hold back those after it before that is told.
pub const BARRIER_PATIENCE: Duration = Duration::from_secs(10);
/// Least time between two cards that differ in the vector only.
pub const CARD_INTERVAL: Duration = Duration::from_secs(2);
/// Pause when the queue to the XMPP session is full.
pub const FULL_PAUSE: Duration = Duration::from_millis(20);
/// Pause when the room or the node refused a batch.
pub const REFUSED_PAUSE: Duration = Duration::from_secs(1);
/// Answers to pulls that wait for the driver.
pub const PULLS_MAX: usize = 64;
/// How long the answer to a pull may take.
pub const PULL_TIMEOUT: Duration = Duration::from_secs(15);
/// How often that time is doubled, and what is asked for halved, for a peer that is late: to four minutes, and 4 kB.
pub const PATIENCE_STEPS_MAX: u32 = 4;
/// Answers in a row that have to be quick before it is taken back by one step.
pub const QUICK_ANSWERS: u32 = 16;
/// Peers of whom that is remembered.
pub const SLOW_PEERS_MAX: usize = 1_000;
/// Bytes of content in one page. Base64 and markup have to fit into a stanza with it.
pub const PAGE_BYTES_MAX: u32 = 64 * 1024;
/// Bytes of a batch on the wire that go into a page; a larger one goes in parts.
pub const PAGE_PAYLOAD_BYTES_MAX: usize = 120 * 1024;
/// How long a stopping replica waits for its last changes to come back from the room.
pub const FLUSH_TIMEOUT: Duration = Duration::from_millis(700);
/// How long the host waits for a stopping replica.
pub const STOP_TIMEOUT: Duration = Duration::from_millis(1_200);
/// How long the last connections may take to close.
pub const CLOSE_TIMEOUT: Duration = Duration::from_millis(400);
/// Stack of the thread of the XMPP connections. The XML library builds and drops trees by recursion, so a stanza
/// of nothing but opening tags needs about 1 kB for each of the 65,000 that fit into the largest stanza of the
/// usual servers; with too little stack it would end slapd. Only what is used is backed by memory.
pub const STACK_BYTES: usize = 256 * 1024 * 1024;
/// Records that the journal takes in one transaction.
pub const JOURNAL_RECORDS_MAX: usize = 4_000;
/// Bytes of changes that it takes in one transaction.
pub const JOURNAL_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Bytes of changes that may wait for the journal before no more are taken from the clients' queue.
pub const JOURNAL_QUEUE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Pause before a new journal is made from a database in use; it doubles with each attempt.
pub const REBUILD_PAUSE: Duration = Duration::from_secs(5);
/// Longest such pause. A journal that lasted longer than this ends their growing.
pub const REBUILD_PAUSE_MAX: Duration = Duration::from_secs(300);
/// How often the state of the database's file is noted in the journal.
pub const GENERATION_INTERVAL: Duration = Duration::from_secs(1);
/// How often the journal is looked through for what is too old.
pub const TRIM_INTERVAL: Duration = Duration::from_secs(60);
/// As often at most, where changes are kept for less than that.
pub const TRIM_INTERVAL_MIN: Duration = Duration::from_secs(1);
/// Part of its size by which the journal may be too large before something is dropped at once.
pub const JOURNAL_EXCESS_PART: u64 = 8;
/// Pause between two steps of dropping what is too old, so that writes come in between.
pub const TRIM_PAUSE: Duration = Duration::from_millis(50);
/// Pulls that are answered at one time; further ones are told that this replica is busy.
pub const ANSWERS_MAX: usize = 8;
/// Snapshots that are sent at one time; one transfer stays for single entries.
pub const LOADS_MAX: usize = xmppsync_link::limits::TRANSFERS_OUT_MAX - 1;
/// Single changes and entries that are made into files, and sent, at one time.
pub const FILES_MAX: usize = xmppsync_link::limits::TRANSFERS_OUT_MAX;
/// How long closing the journal may hold up slapd's end.
pub const JOURNAL_CLOSE_TIMEOUT: Duration = Duration::from_millis(400);
/// Bytes of a message that is kept for an absent peer, on the wire.
pub const STORED_BYTES_MAX: usize = 100 * 1024;
/// Changes in such a message.
pub const STORED_CHANGES_MAX: usize = 500;
/// How long changes gather for such a message.
pub const STORED_DELAY: Duration = Duration::from_secs(2);
/// How often the position of a peer is noted in the journal.
pub const PEER_INTERVAL: Duration = Duration::from_secs(30);
/// How long a thread of the host that reads is waited for before another one is asked for.
pub const READ_PATIENCE: Duration = Duration::from_millis(500);
/// How often it is looked again for an entry that the journal knows and the database has not.
pub const LOOK_AGAIN_MAX: u32 = 20;
/// The pause before that.
pub const LOOK_AGAIN_PAUSE: Duration = Duration::from_millis(50);
/// Bytes of an answer with entries.
pub const ENTRIES_BYTES_MAX: u32 = 100 * 1024;
/// Entries that are looked up for one answer or offer before it is seen whether more fit.
pub const LOOKED_UP_AT_ONCE: usize = 64;
/// So long nothing is committed for them,
pub const MOMENT_MAX: Duration = Duration::from_millis(20);
/// and how long to wait for a commit at a time.
pub const COMMIT_WAIT: Duration = Duration::from_millis(1);
/// Comparisons by peers that are open at one time; each holds the whole set of entries.
pub const COMPARISONS_MAX: usize = 2;
/// How long a peer that wants to compare waits for this server's entries to be listed before it is told to ask again;
pub const LISTING_ANSWER: Duration = Duration::from_secs(10);
/// how long it asks,
pub const LISTING_PATIENCE: Duration = Duration::from_secs(900);
/// and the pause before it asks again.
pub const LISTING_PAUSE: Duration = Duration::from_secs(2);
/// How often entries are looked at again that are being written, or differ for no reason that is known,
pub const SETTLE_TRIES: u32 = 10;
/// and the pause before: longer than [`BOOKKEEPING_PAUSE`], for which a server may keep something to itself.
pub const SETTLE_PAUSE: Duration = Duration::from_secs(2);
/// Changes of an entry that a comparison names, so that they fit an answer with an entry; of more than these those that were seen are
/// not named, as if they were forgotten,
pub const PAST_CHANGES_MAX: usize = 700;
/// changes that wait,
pub const PAST_WAITING_MAX: usize = 100;
/// and moves.
pub const PAST_MOVES_MAX: usize = 50;
/// Changes that are asked for to know what those mean that are made again.
pub const TOLD_CHANGES_MAX: usize = 5_000;
/// Moves that are learned in one step.
pub const MOVES_LEARNED_AT_ONCE: usize = 100;
/// States that are put into the queue to apply together.
pub const STATES_QUEUED_AT_ONCE: usize = 100;
/// Entries that a peer is to look at together,
pub const OFFERED_AT_ONCE: usize = 64;
/// and how long that may take.
pub const OFFER_TIMEOUT: Duration = Duration::from_secs(60);
/// Pause before entries in doubt are compared with another server's; it doubles with each attempt that leaves some,
pub const DOUBT_PAUSE: Duration = Duration::from_secs(2);
/// to this.
pub const DOUBT_PAUSE_MAX: Duration = Duration::from_secs(600);
/// How long a comparison may stand still while another peer wants its place.
pub const COMPARISON_PAUSE: Duration = Duration::from_secs(3);
/// How long it may stand still.
pub const COMPARISON_TIMEOUT: Duration = Duration::from_secs(60);
/// Pause after a check that came to nothing.
pub const CHECK_RETRY: Duration = Duration::from_secs(60);
/// Pause between comparisons with one server after the other, for as long as each finds something; shorter ones come before.
pub const SPREAD_PAUSE_MAX: Duration = Duration::from_secs(600);
/// Pause after another server could not be given what one was given.
pub const SPREAD_RETRY: Duration = Duration::from_secs(5);
/// How old a snapshot may be and still be given to somebody new.
pub const SNAPSHOT_AGE: Duration = Duration::from_secs(300);
/// How long a snapshot is kept for those who go on with it.
pub const SNAPSHOT_KEPT: Duration = Duration::from_secs(1_800);
/// How long nobody is given a snapshot after one could not be made: whoever wants one asks somebody else.
pub const SNAPSHOT_RETRY: Duration = Duration::from_secs(10);
/// How hard zstd tries (1 to 22): beyond this it costs more time than the network saves.
pub const SNAPSHOT_COMPRESSION: i32 = 3;
/// How often a source is asked whether its snapshot is made.
pub const SNAPSHOT_POLL: Duration = Duration::from_millis(50);
/// How long a source may take to make it.
pub const SNAPSHOT_PATIENCE: Duration = Duration::from_secs(900);
/// Bytes of LDIF that are read at one time.
pub const UNPACK_PIECE: usize = 16 * 1024;
/// How often a load looks for room in the queue to apply.
pub const LOAD_HELD_PAUSE: Duration = Duration::from_millis(5);
/// How often the progress of a load is logged.
pub const LOAD_LOG_INTERVAL: Duration = Duration::from_secs(5);
/// How often a load may be cut off and goes on where it was, before it begins anew.
pub const LOAD_CUTS_MAX: u32 = 20;
/// Pause before it goes on.
pub const LOAD_PAUSE: Duration = Duration::from_millis(500);
/// How long the source of a load that was cut off may be away before another one is looked for.
pub const LOAD_RESUME_PATIENCE: Duration = Duration::from_secs(30);
/// Pause before a load that came to nothing is begun anew.
pub const LOAD_RETRY: Duration = Duration::from_secs(5);
/// Bytes of a change on the wire beyond which it travels as a file and no more in parts.
pub const PARTS_BYTES_MAX: usize = 1024 * 1024;
/// Files that peers offer and nobody has asked for yet.
pub const OFFERS_MAX: usize = 16;
/// Bytes of states that a comparison gathers before they are put into order and applied.
pub const STATES_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Deletes that are remembered so that an older state does not bring the entry back.
pub const RECENT_DELETES_MAX: usize = 10_000;
/// How long a transaction waits for what the journal knows of an entry.
pub const HISTORY_PATIENCE: Duration = Duration::from_secs(2);
/// Entries whose changes are kept in memory after the journal was asked for them,
pub const HISTORIES_MAX: usize = 4;
/// and bytes of each.
pub const HISTORY_BYTES_MAX: usize = 4 * 1024 * 1024;
/// How long a transaction waits for a client's write that is committed to be told: so often,
pub const CLIENT_TRIES: u32 = 100;
/// and so long each time.
pub const CLIENT_PAUSE: Duration = Duration::from_micros(200);
/// Entries in doubt that are kept, to be compared with other servers.
pub const DOUBTS_MAX: usize = 10_000;
/// Changes that come in their turn, and are in the database already because a comparison took the state that they led to: as many are
/// remembered.
pub const AHEAD_MAX: usize = 100_000;
/// Marks of losses that an entry bears; the oldest go.
pub const MARKS_MAX: usize = 32;
/// Bytes of a lost value that its mark shows; a larger one is named by its digest.
pub const MARK_BYTES_MAX: usize = 512;
/// Entries that are marked in one transaction: marks are writes, which go to all servers.
pub const MARKED_ENTRIES_MAX: usize = 100;
/// Attempts to do what a client's rename or delete means for others.
pub const FOLLOW_ATTEMPTS: u32 = 30;
/// Entries of the log of moves for which the journal is asked at once, beside the one that is needed: a millisecond or two.
pub const DELETES_ASKED_MAX: usize = 1_000;
/// How long a transaction that applies changes takes, more or less: clients that write wait for it.
pub const TRANSACTION_TIME: Duration = Duration::from_millis(200);
