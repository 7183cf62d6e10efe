//! slapd's log.

use crate::boundary::{XS_LOG_DEBUG, XS_LOG_ERROR, XS_LOG_INFO, xs_log};
use std::ffi::CString;
use std::io;
use tracing::{Level, Metadata};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;

/// An error line outside of tracing.
pub(crate) fn error(text: &str) {
    write(XS_LOG_ERROR, text);
}

fn write(level: u32, text: &str) {
    let clean: Vec<u8> = text.bytes().filter(|byte| *byte != 0).collect();
    // Without NUL bytes it always can be made.
    if let Ok(line) = CString::new(clean) {
        // SAFETY: `line` is terminated and lives until the call returns; xs_log takes any thread.
        unsafe { xs_log(level as i32, line.as_ptr()) }
    }
}

/// Sends what the crates of the overlay report to slapd's log.
///
/// Debug lines go to slapd's `sync` level. Nothing of tokio-xmpp is shown: at trace level it prints stanzas,
/// logins among them.
pub(crate) fn install() {
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(LevelFilter::DEBUG)
        .without_time()
        .with_ansi(false)
        .with_level(false)
        .with_target(false)
        .with_writer(ToSlapd)
        .finish();
    // Set before only when slapd loads the module twice; the first one serves.
    let _ = tracing::subscriber::set_global_default(subscriber);
}

struct ToSlapd;

struct Line(u32);

impl<'a> MakeWriter<'a> for ToSlapd {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line(XS_LOG_DEBUG)
    }

    fn make_writer_for(&'a self, meta: &Metadata<'_>) -> Line {
        let ours = meta.target().starts_with("xmppsync");
        Line(match *meta.level() {
            Level::ERROR | Level::WARN => XS_LOG_ERROR,
            Level::INFO if ours => XS_LOG_INFO,
            _ => XS_LOG_DEBUG,
        })
    }
}

impl io::Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        write(self.0, String::from_utf8_lossy(bytes).trim_end());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
