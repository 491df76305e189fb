//! Drives QEMU's human monitor from a program.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{self, Command};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use std::{env, fs};

use anyhow::{Context, Result, bail};

const LIMIT: Duration = Duration::from_secs(30);
const PROMPT: &[u8] = b"(qemu) ";

/// A connection to a QEMU's monitor.
#[derive(Debug)]
pub struct Monitor {
    socket: PathBuf,
}

impl Monitor {
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

    /// Ends QEMU. Waits, because QEMU may ignore a command if the connection is closed before QEMU
    /// has read the command.
    pub fn quit(&self) -> Result<()> {
        let mut stream = self.connect()?;
        writeln!(stream, "quit")?;
        match io::copy(&mut stream, &mut io::sink()) {
            Err(error) if error.kind() != io::ErrorKind::ConnectionReset => {
                Err(error).context("QEMU does not exit")
            }
            _ => Ok(()),
        }
    }

    fn connect(&self) -> Result<UnixStream> {
        let mut stream =
            UnixStream::connect(&self.socket).context("QEMU's monitor does not answer")?;
        stream.set_read_timeout(Some(LIMIT))?;
        wait(&mut stream)?;
        Ok(stream)
    }
}

impl Drop for Monitor {
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
            0 => bail!("QEMU's monitor closed the connection"),
            length => said.extend_from_slice(&part[..length]),
        }
    }
    Ok(())
}
