//! Runs compilers on sources that are not trusted, with limits of processor time, memory and
//! output. Nothing keeps them waiting: their input ends, and they open no files.

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process_group};
use std::ffi::OsStr;
use std::io::{Read, Write};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::thread;

/// A compiler.
pub(crate) struct Compiler {
    program: &'static str,
    /// Debian package that contains it.
    package: &'static str,
}

pub(crate) const CPP: Compiler = Compiler { program: "cpp", package: "cpp" };
pub(crate) const DTC: Compiler = Compiler { program: "dtc", package: "device-tree-compiler" };
pub(crate) const IASL: Compiler = Compiler { program: "iasl", package: "acpica-tools" };

/// Maximum length of the errors that are shown, in bytes.
const MAX_ERRORS: u64 = 8 << 10;
/// Starts a program with at most 10 seconds of CPU time, 1 GiB of memory, and files of at most
/// 64 MiB (in blocks of 512 bytes). A compiler may start further programs, and its limits also
/// apply to them.
const LIMITED: &str = "ulimit -t 10; ulimit -v 1048576; ulimit -f 131072; exec \"$0\" \"$@\"";
/// Exit status of the shell if it cannot find the program.
const NOT_FOUND: i32 = 127;

/// Passes `input` to a compiler, and returns its output.
///
/// # Errors
/// Returns an error if the compiler is not installed, exceeds a limit, or refuses the input.
pub(crate) fn run(
    compiler: &Compiler,
    arguments: &[impl AsRef<OsStr>],
    input: &[u8],
    limit: usize,
) -> Result<Vec<u8>> {
    let Compiler { program, package } = compiler;
    let mut command = Command::new("sh");
    command.args(["-c", LIMITED, program]).args(arguments).env("LC_ALL", "C");
    // A compiler may start others, which must end with it.
    command.process_group(0);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().context("cannot start `sh`")?;
    let said = talk(&mut child, input, limit);
    if said.is_err() {
        // The signal fails if the compiler has already ended.
        let _ = kill_process_group(Pid::from_child(&child), Signal::KILL);
    }
    let status = child.wait().with_context(|| format!("`{program}` cannot be waited for"))?;
    if status.code() == Some(NOT_FOUND) {
        bail!("this source needs `{program}`, which is in Debian's package `{package}`");
    }
    let (output, errors) = said.with_context(|| format!("`{program}` was stopped"))?;
    if !status.success() {
        // `iasl` writes errors to its standard output, and what it compiles to files.
        let errors = [output, errors].concat();
        let errors = String::from_utf8_lossy(&errors);
        bail!("`{program}` refuses the source: {}", errors.trim());
    }
    Ok(output)
}

/// Writes the input and reads the output and the errors at the same time.
fn talk(child: &mut Child, input: &[u8], limit: usize) -> Result<(Vec<u8>, Vec<u8>)> {
    let pipes = child.stdin.take().zip(child.stdout.take()).zip(child.stderr.take());
    let ((mut stdin, stdout), mut stderr) = pipes.context("it has no pipes")?;
    let input = input.to_vec();
    // A compiler that refuses its input does not read all of it.
    thread::spawn(move || drop(stdin.write_all(&input)));
    let errors = thread::spawn(move || {
        let mut errors = Vec::new();
        let _ = (&mut stderr).take(MAX_ERRORS).read_to_end(&mut errors);
        let _ = std::io::copy(&mut stderr, &mut std::io::sink());
        errors
    });
    let mut output = Vec::new();
    stdout.take(limit as u64 + 1).read_to_end(&mut output)?;
    if output.len() > limit {
        bail!("its output is larger than {} MiB", limit >> 20);
    }
    Ok((output, errors.join().unwrap_or_default()))
}
