//! slapd's offline tools, on a server's configuration.

use std::io::{Seek, Write};
use std::process::{Command, Stdio};

use super::{Slapd, Source};
use crate::child::run_tool;
use crate::error::{IoContext, Result};

/// A tool about to be run.
pub(super) struct Tool(Command);

impl Tool {
    pub(super) fn arg(mut self, argument: impl AsRef<std::ffi::OsStr>) -> Self {
        self.0.arg(argument);
        self
    }

    pub(super) fn args<const N: usize>(mut self, arguments: [&str; N]) -> Self {
        self.0.args(arguments);
        self
    }

    /// Gives it the text as standard input.
    pub(super) fn input(mut self, text: &str) -> Result<Self> {
        // A file, not a pipe: nobody has to feed it while the tool prints.
        let mut file = tempfile::tempfile().context(|| "cannot make a temporary file".to_owned())?;
        file.write_all(text.as_bytes())
            .and_then(|()| file.rewind())
            .context(|| "cannot write a temporary file".to_owned())?;
        self.0.stdin(Stdio::from(file));
        Ok(self)
    }

    /// Runs it; what it printed on standard output.
    pub(super) fn run(mut self) -> Result<String> {
        run_tool(&mut self.0).map(|output| String::from_utf8_lossy(&output).into_owned())
    }
}

impl Slapd {
    /// A tool such as `slapcat`, with this server's configuration.
    pub(super) fn tool(&self, name: &str) -> Result<Tool> {
        // All of them are slapd by another name, and -T works with a copy of it too.
        let mut command = Command::new(self.program()?);
        command.arg("-T").arg(name.strip_prefix("slap").unwrap_or(name));
        match &self.source {
            Source::File(file) => command.arg("-f").arg(file),
            Source::Directory(directory) => command.arg("-F").arg(directory),
        };
        command.stdin(Stdio::null());
        command.envs(self.options.environment.iter().cloned());
        Ok(Tool(command))
    }

    /// The database as LDIF; the server may be running.
    ///
    /// # Errors
    /// When slapcat fails, with what it says.
    pub fn slapcat(&self, suffix: &str) -> Result<String> {
        self.tool("slapcat")?.args(["-b", suffix]).run()
    }

    /// The configuration as LDIF, as slapd itself understands it, of a slapd.conf too.
    ///
    /// # Errors
    /// When slaptest or slapcat fails, with what it says.
    pub fn slapcat_config(&self) -> Result<String> {
        let Source::File(_) = self.source else {
            return self.tool("slapcat")?.args(["-n", "0"]).run();
        };
        // slapcat shows cn=config only where it is a directory.
        let directory = tempfile::tempdir_in(&self.dir).context(|| "cannot make a directory".to_owned())?;
        self.tool("slaptest")?.args(["-n", "0", "-F"]).arg(directory.path()).run()?;
        let mut slapcat = Command::new(self.program()?);
        slapcat.args(["-T", "cat", "-n", "0", "-F"]).arg(directory.path()).stdin(Stdio::null());
        Tool(slapcat).run()
    }

    /// Loads LDIF into the database of a server that is not running. `quick` skips checks and syncing.
    ///
    /// # Errors
    /// When slapadd fails, with what it says.
    pub fn slapadd(&self, suffix: &str, ldif: &str, quick: bool) -> Result<()> {
        self.slapadd_with(suffix, ldif, if quick { &["-q"] } else { &[] })
    }

    /// [`Slapd::slapadd`] with more arguments, such as `-w`, which sets contextCSN.
    ///
    /// # Errors
    /// When slapadd fails, with what it says.
    pub fn slapadd_with(&self, suffix: &str, ldif: &str, arguments: &[&str]) -> Result<()> {
        let tool = self.tool("slapadd")?.args(["-b", suffix]);
        let tool = arguments.iter().fold(tool, |tool, argument| tool.arg(argument));
        tool.input(ldif)?.run().map(drop)
    }

    /// Carries out change records on the database of a server that is not running. slapmodify knows add, modify and
    /// delete.
    ///
    /// # Errors
    /// When slapmodify fails, with what it says.
    pub fn slapmodify(&self, suffix: &str, ldif: &str, arguments: &[&str]) -> Result<()> {
        let tool = self.tool("slapmodify")?.args(["-b", suffix]);
        let tool = arguments.iter().fold(tool, |tool, argument| tool.arg(argument));
        tool.input(ldif)?.run().map(drop)
    }

    /// Checks the configuration.
    ///
    /// # Errors
    /// When slaptest refuses it, with what it says.
    pub fn slaptest(&self) -> Result<String> {
        self.tool("slaptest")?.arg("-u").run()
    }

    /// Checks the configuration and opens the databases with it; their files must be there.
    ///
    /// # Errors
    /// When slaptest refuses it, with what it says.
    pub fn slaptest_databases(&self) -> Result<String> {
        self.tool("slaptest")?.run()
    }
}
