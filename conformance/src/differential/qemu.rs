//! A QEMU whose CPUs do not run, driven over its standard input and output; its monitor resets it.

use super::peer::Peer;
use super::places::{CPUS, USED};
use anyhow::{Context, Result, bail, ensure};
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

/// How long QEMU takes to start, at most.
const START: Duration = Duration::from_secs(30);
/// How long the monitor takes to answer, at most.
const ANSWER: Duration = Duration::from_secs(30);
/// Bytes of lines that are sent before their replies are read: what a pipe holds.
const SENT_AHEAD: usize = 0x8000;

/// A QEMU process.
#[derive(Debug)]
pub struct Qemu {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    monitor: BufReader<UnixStream>,
    socket: PathBuf,
}

impl Qemu {
    /// Starts `program`, which may have its own libraries, with its monitor's socket in `folder`.
    ///
    /// # Errors
    /// It cannot be started, or its monitor says nothing.
    pub fn start(program: &Path, libraries: Option<&Path>, folder: &Path) -> Result<Self> {
        let socket = folder.join(format!("doorbell-qmp-{}", std::process::id()));
        drop(std::fs::remove_file(&socket));
        let mut command = Command::new(program);
        command.args(["-M", "virt,gic-version=3,its=on", "-cpu", "cortex-a57", "-m", "128M"]);
        command.args(["-smp", &CPUS.to_string(), "-display", "none", "-nodefaults"]);
        // Debian builds no `qtest` accelerator; stopped CPUs do as well.
        command.args(["-accel", "tcg", "-S", "-qtest", "stdio", "-qtest-log", "none", "-qmp"]);
        command.arg(format!("unix:{},server=on,wait=off", socket.display()));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        if let Some(libraries) = libraries {
            command.env("LD_LIBRARY_PATH", libraries);
        }
        let mut child = command.spawn().with_context(|| format!("cannot start {}", program.display()))?;
        let input = child.stdin.take().context("QEMU has no input")?;
        let output = BufReader::new(child.stdout.take().context("QEMU has no output")?);
        let monitor = connect(&mut child, &socket)?;
        let mut qemu = Self { child, input, output, monitor, socket };
        qemu.monitor("{\"execute\":\"qmp_capabilities\"}", "\"return\"")?;
        Ok(qemu)
    }

    /// Sends a command to the monitor and reads up to the line that holds `awaited`.
    fn monitor(&mut self, command: &str, awaited: &str) -> Result<()> {
        writeln!(self.monitor.get_mut(), "{command}")?;
        let mut line = String::new();
        loop {
            line.clear();
            let read = self.monitor.read_line(&mut line).context("QEMU's monitor does not answer")?;
            ensure!(read > 0, "QEMU's monitor is gone");
            if line.contains(awaited) {
                return Ok(());
            }
        }
    }

    fn read_reply(&mut self) -> Result<String> {
        let mut line = String::new();
        ensure!(self.output.read_line(&mut line)? > 0, "QEMU is gone");
        line.truncate(line.trim_end().len());
        Ok(line)
    }
}

/// Connects to the monitor of a QEMU that is starting.
fn connect(child: &mut Child, socket: &Path) -> Result<BufReader<UnixStream>> {
    let deadline = Instant::now() + START;
    loop {
        if let Ok(stream) = UnixStream::connect(socket) {
            stream.set_read_timeout(Some(ANSWER))?;
            return Ok(BufReader::new(stream));
        }
        if let Some(status) = child.try_wait()? {
            bail!("QEMU ended with {status}");
        }
        ensure!(Instant::now() < deadline, "QEMU opens no monitor at {}", socket.display());
        std::thread::sleep(Duration::from_millis(10));
    }
}

impl Peer for Qemu {
    fn reset(&mut self) -> Result<()> {
        self.monitor("{\"execute\":\"system_reset\"}", "\"RESET\"")?;
        let clear = format!("memset {:#x} {:#x} 0", USED.start, USED.end - USED.start);
        self.replies(&mut std::iter::once(&*clear)).map(drop)
    }

    fn replies(&mut self, lines: &mut dyn Iterator<Item = &str>) -> Result<Vec<String>> {
        let mut replies = Vec::new();
        let mut lines = lines.peekable();
        let mut ahead = String::new();
        while lines.peek().is_some() {
            ahead.clear();
            let mut count = 0;
            while let Some(line) = lines.next_if(|_| ahead.len() < SENT_AHEAD) {
                writeln!(ahead, "{line}")?;
                count += 1;
            }
            self.input.write_all(ahead.as_bytes())?;
            for _ in 0..count {
                replies.push(self.read_reply()?);
            }
        }
        Ok(replies)
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
        drop(std::fs::remove_file(&self.socket));
    }
}
