//! A QEMU whose CPUs stand still or only acknowledge, driven over its standard input and output; its monitor resets it.

use super::acknowledge::{Acknowledged, LIST, PROGRAM, PROGRAM_BASE, mailbox};
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
    files: [PathBuf; 2],
    cpus: Cpus,
}

/// What QEMU's CPUs do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cpus {
    /// Nothing.
    Stopped,
    /// They acknowledge when they are told to.
    Acknowledge,
}

impl Qemu {
    /// Starts `program`, which may have its own libraries, with its monitor's socket in `folder`.
    ///
    /// # Errors
    /// It cannot be started, or its monitor says nothing.
    pub fn start(program: &Path, libraries: Option<&Path>, folder: &Path, cpus: Cpus) -> Result<Self> {
        let name = format!("doorbell-{}-{cpus:?}", std::process::id()).to_lowercase();
        let (socket, image) = (folder.join(format!("{name}.qmp")), folder.join(format!("{name}.image")));
        drop(std::fs::remove_file(&socket));
        let mut command = Command::new(program);
        command.args(["-M", "virt,gic-version=3,its=on", "-cpu", "cortex-a57", "-m", "128M"]);
        command.args(["-smp", &CPUS.to_string(), "-display", "none", "-nodefaults"]);
        // Debian builds no `qtest` accelerator; stopped CPUs do as well.
        match cpus {
            Cpus::Stopped => drop(command.args(["-accel", "tcg", "-S"])),
            Cpus::Acknowledge => {
                let bytes: Vec<u8> = PROGRAM.iter().flat_map(|word| word.to_le_bytes()).collect();
                std::fs::write(&image, bytes)?;
                // In one thread, a CPU that waits gives way to the next.
                command.args(["-accel", "tcg,thread=single", "-device"]);
                command.arg(format!("loader,file={},addr={PROGRAM_BASE},force-raw=on", image.display()));
                command.args(["-device", &format!("loader,addr={PROGRAM_BASE},cpu-num=0")]);
            }
        }
        command.args(["-qtest", "stdio", "-qtest-log", "none", "-qmp"]);
        command.arg(format!("unix:{},server=on,wait=off", socket.display()));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        if let Some(libraries) = libraries {
            command.env("LD_LIBRARY_PATH", libraries);
        }
        let mut child = command.spawn().with_context(|| format!("cannot start {}", program.display()))?;
        let input = child.stdin.take().context("QEMU has no input")?;
        let output = BufReader::new(child.stdout.take().context("QEMU has no output")?);
        let monitor = connect(&mut child, &socket)?;
        let mut qemu = Self { child, input, output, monitor, files: [socket, image], cpus };
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

    /// The number that a line is answered with; 0 if it is done.
    fn number(&mut self, line: &str) -> Result<u64> {
        let reply = self.replies(&mut std::iter::once(line))?.pop().unwrap_or_default();
        let number = reply.strip_prefix("OK").with_context(|| format!("QEMU says {reply} to {line}"))?;
        let digits = number.trim().trim_start_matches("0x");
        Ok(if digits.is_empty() { 0 } else { u64::from_str_radix(digits, 16)? })
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

    fn acknowledge(&mut self, cpu: u16) -> Result<Vec<Acknowledged>> {
        ensure!(self.cpus == Cpus::Acknowledge, "QEMU's CPUs are stopped");
        let mailbox = mailbox(cpu);
        self.number(&format!("writel {mailbox:#x} 1"))?;
        let deadline = Instant::now() + ANSWER;
        while self.number(&format!("readl {mailbox:#x}"))? != 0 {
            ensure!(Instant::now() < deadline, "QEMU's CPU {cpu} does not answer");
            std::thread::yield_now();
        }
        let count = self.number(&format!("readl {:#x}", mailbox + 4))?;
        let pairs = (0..count).map(|index| self.number(&format!("readq {:#x}", mailbox + LIST + 8 * index)));
        let halves = |pair: u64| -> Result<Acknowledged> {
            Ok(Acknowledged {
                priority: u32::try_from(pair >> 32)?,
                intid: u32::try_from(pair & 0xffff_ffff)?,
            })
        };
        pairs.map(|pair| halves(pair?)).collect()
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
        for file in &self.files {
            drop(std::fs::remove_file(file));
        }
    }
}
