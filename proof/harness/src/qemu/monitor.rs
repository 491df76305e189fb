//! Drives QEMU's human monitor from a program.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

const LIMIT: Duration = Duration::from_secs(30);
const PROMPT: &[u8] = b"(qemu) ";

/// A connection to a QEMU's monitor.
#[derive(Debug)]
pub struct Monitor {
    socket: PathBuf,
}

impl Monitor {
    /// Adds an argument that makes QEMU offer a monitor on a socket in `folder`.
    pub fn offered_by(qemu: &mut Command, folder: &Path) -> Result<Self> {
        let socket = folder.join("monitor.sock");
        if socket.exists() {
            fs::remove_file(&socket)?;
        }
        qemu.arg("-monitor").arg(format!("unix:{},server=on,wait=off", socket.display()));
        Ok(Self { socket })
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
