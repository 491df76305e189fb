//! A client of QEMU's qtest protocol, over QEMU's standard input and output.

use anyhow::{Context, Result, ensure};
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// Start of a line that reports a change of a watched interrupt line.
const CHANGE: &str = "IRQ ";

/// A QEMU that executes lines of the protocol. It is killed on drop.
#[derive(Debug)]
pub struct Qtest {
    pub(crate) child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Qtest {
    /// Starts QEMU with the arguments that `qemu` already has.
    ///
    /// # Errors
    /// Fails if QEMU cannot be started.
    pub fn start(mut qemu: Command) -> Result<Self> {
        qemu.args(["-qtest", "stdio", "-qtest-log", "none"]);
        qemu.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = qemu.spawn().context("cannot start QEMU")?;
        let input = child.stdin.take().context("QEMU has no standard input")?;
        let output = BufReader::new(child.stdout.take().context("QEMU has no standard output")?);
        Ok(Self { child, input, output })
    }

    /// Sends lines without waiting for their replies, which must fit into a pipe.
    pub(crate) fn send(&mut self, lines: &str) -> Result<()> {
        self.input.write_all(lines.as_bytes()).map_err(Into::into)
    }

    /// Reads the next reply. QEMU sends the changes of interrupt lines that a request caused before
    /// its reply; they are passed to `change`.
    pub(crate) fn reply(&mut self, mut change: impl FnMut(&str)) -> Result<String> {
        let mut line = String::new();
        loop {
            line.clear();
            ensure!(self.output.read_line(&mut line)? > 0, "QEMU has exited");
            line.truncate(line.trim_end().len());
            match line.strip_prefix(CHANGE) {
                Some(changed) => change(changed),
                None => return Ok(line),
            }
        }
    }

    /// Executes a line, and returns the text after `OK` in the reply.
    ///
    /// # Errors
    /// Fails if QEMU refuses the line or has exited.
    pub fn tell(&mut self, line: &str) -> Result<String> {
        self.send(&format!("{line}\n"))?;
        let reply = self.reply(|_| ())?;
        let told = reply.strip_prefix("OK");
        let told = told.with_context(|| format!("QEMU answers {line} with {reply}"))?;
        Ok(told.trim_start().to_owned())
    }

    /// Reads memory.
    ///
    /// # Errors
    /// Fails if [`tell`](Self::tell) does.
    pub fn read(&mut self, address: u64, bytes: usize) -> Result<Vec<u8>> {
        let told = self.tell(&format!("read {address:#x} {bytes}"))?;
        let digits = told.strip_prefix("0x").context("no digits")?.as_bytes();
        digits.chunks(2).map(|pair| Ok(u8::from_str_radix(str::from_utf8(pair)?, 16)?)).collect()
    }

    /// Writes memory.
    ///
    /// # Errors
    /// Fails if [`tell`](Self::tell) does.
    pub fn write(&mut self, address: u64, bytes: &[u8]) -> Result<()> {
        let mut line = format!("write {address:#x} {} 0x", bytes.len());
        bytes.iter().try_for_each(|byte| write!(line, "{byte:02x}"))?;
        self.tell(&line).map(drop)
    }
}

impl Drop for Qtest {
    fn drop(&mut self) {
        // QEMU may already have exited.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
