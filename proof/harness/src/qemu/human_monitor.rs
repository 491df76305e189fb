//! Drives QEMU's human monitor from a program.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{self, Command};
use std::sync::atomic::{AtomicU32, Ordering};
use std::{env, fs};

use anyhow::{Context, Result, bail};

use crate::hang;

const PROMPT: &[u8] = b"(qemu) ";

/// A connection to a QEMU's monitor.
#[derive(Debug)]
pub struct HumanMonitor {
    socket: PathBuf,
}

impl HumanMonitor {
    /// Adds an argument that makes QEMU offer a monitor on a socket, which no other QEMU uses.
    pub fn offered_by(qemu: &mut Command) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        // Only short paths can name a socket.
        let socket = env::temp_dir().join(format!("doorbell-{}-{number}.sock", process::id()));
        qemu.arg("-monitor").arg(format!("unix:{},server=on,wait=off", socket.display()));
        Self { socket }
    }

    /// Sends commands, and waits for each to complete.
    pub fn order(&self, orders: &[&str]) -> Result<()> {
        let mut stream = self.connect()?;
        for order in orders {
            writeln!(stream, "{order}")?;
            wait(&mut stream).with_context(|| format!("at `{order}`"))?;
        }
        Ok(())
    }

    /// Ends QEMU, unless it has ended by itself. Waits, because QEMU may ignore a command if the
    /// connection is closed before QEMU has read the command.
    pub fn quit(&self) -> Result<()> {
        match self.order(&["quit"]) {
            Err(error) if has_ended(&error) => Ok(()),
            Err(error) => Err(error.context("QEMU does not exit")),
            Ok(()) => bail!("QEMU does not exit, but prompts again"),
        }
    }

    fn connect(&self) -> Result<UnixStream> {
        let mut stream =
            UnixStream::connect(&self.socket).context("QEMU's monitor does not answer")?;
        stream.set_read_timeout(Some(hang::on_this_machine(hang::ANSWER)))?;
        wait(&mut stream)?;
        Ok(stream)
    }
}

impl Drop for HumanMonitor {
    fn drop(&mut self) {
        // QEMU removes the socket unless it is killed.
        let _ = fs::remove_file(&self.socket);
    }
}

/// Waits for the prompt.
fn wait(stream: &mut UnixStream) -> Result<()> {
    let mut said = Vec::new();
    let mut part = [0; 4096];
    while !said.ends_with(PROMPT) {
        match stream.read(&mut part).context("QEMU's monitor does not respond")? {
            0 => {
                let error = io::Error::from(io::ErrorKind::UnexpectedEof);
                return Err(error).context("QEMU's monitor closed the connection");
            }
            length => said.extend_from_slice(&part[..length]),
        }
    }
    Ok(())
}

/// Returns `true` if the error means that QEMU has closed the socket.
fn has_ended(error: &anyhow::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionRefused, ConnectionReset, NotFound, UnexpectedEof};
    let kind = error.root_cause().downcast_ref::<io::Error>().map(io::Error::kind);
    let ended = [NotFound, ConnectionRefused, ConnectionReset, BrokenPipe, UnexpectedEof];
    kind.is_some_and(|kind| ended.contains(&kind))
}
