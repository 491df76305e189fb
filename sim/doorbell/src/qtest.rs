//! `doorbell qtest`.

use crate::cli::{QtestArgs, SecurityStates};
use crate::exit::Outcome;
use crate::print::quiet_if_closed;
use anyhow::{Context, Result};
use doorbell_qtest::{Qtest, serve};
use std::io::{self, BufReader};
use std::os::unix::net::{UnixListener, UnixStream};

/// Executes a script from standard input or a socket until the input ends.
pub(crate) fn qtest(args: &QtestArgs) -> Result<Outcome> {
    let mut machine = match args.security {
        SecurityStates::One => Qtest::new(args.cpus)?,
        SecurityStates::Two => Qtest::non_secure(args.cpus)?,
    };
    if args.unmask {
        machine.unmask();
    }
    match &args.socket {
        None => quiet_if_closed(serve(&mut machine, io::stdin().lock(), io::stdout().lock()))?,
        Some(socket) => {
            let stream = open(socket)?;
            quiet_if_closed(serve(&mut machine, BufReader::new(&stream), &stream))?;
        }
    }
    Ok(Outcome::Good)
}

/// Opens the connection described by `socket`, which uses the syntax of QEMU's `-qtest`.
fn open(socket: &str) -> Result<UnixStream> {
    let socket = socket.strip_prefix("unix:").unwrap_or(socket);
    let Some(path) = socket.strip_suffix(",server=on") else {
        return UnixStream::connect(socket).with_context(|| format!("cannot connect to {socket}"));
    };
    let listener = UnixListener::bind(path).with_context(|| format!("cannot listen at {path}"))?;
    let (stream, _) = listener.accept().with_context(|| format!("cannot accept at {path}"))?;
    Ok(stream)
}
