//! Explores every state of the protocol of GICv4's direct injection (`proof/direct-injection`) by
//! spin, and breaks its rules one by one.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use doorbell_harness::apt::{self, Apt, Suite};
use doorbell_harness::suite::{Absent, Case, OrAbsent, Shared};
use doorbell_harness::{process, temporary, workspace};

/// The protocol, relative to the workspace's folder.
const PROTOCOL: &str = "proof/direct-injection/protocol.pml";
/// Text that the verifier prints if it found no error in any state.
const NO_ERROR: &str = ", errors: 0";
/// Maximum length of a path through the states, which the verifier states if it was too small.
const DEPTH: &str = "-m10000";

/// The rules that can be broken, by their names in the protocol, and what happens then.
const FAULTS: &[(&str, &str)] = &[
    ("unmasked", "a message of a device that is not masked finds no mapping"),
    ("posted", "a message that left the device before the mask finds no mapping"),
    ("undrained", "DISCARD removes a physical LPI that no handler has taken"),
    ("unsynchronized", "a message arrives before a command takes effect"),
    ("forgotten", "an LPI that was pending in software is forgotten"),
    ("listed", "an LPI that is pending in software is handed over, but stays pending there"),
    ("unrecalled", "an LPI stays in a list register while it is handed over"),
    ("dirty_ignored", "PendingLast is read while the redistributor is busy"),
    ("last_ignored", "a vCPU sleeps although PendingLast is 1"),
    ("doorbell_disabled", "a vCPU sleeps without its doorbell"),
    ("announced_late", "a vCPU is recorded as waiting after PendingLast was read"),
    ("unentered", "an event is handed over to a loaded vCPU whose vPE is not resident"),
    ("unlocked", "a vCPU is loaded or put while an event is handed over"),
    ("recalled_lost", "an event that is taken back does not count as pending"),
];

pub(crate) fn cases() -> Vec<Case> {
    let complete = Case::of("no message is lost or doubled", || {
        let printed = explore("none")?;
        ensure!(printed.contains(NO_ERROR), "{}", printed.trim_end());
        Ok(())
    });
    let broken = FAULTS.iter().map(|(fault, what)| {
        Case::of(format!("finds a broken rule: {what}"), || {
            let printed = explore(fault)?;
            ensure!(printed.contains("assertion violated"), "{}", printed.trim_end());
            Ok(())
        })
    });
    [complete].into_iter().chain(broken).collect()
}

/// Explores the states of the protocol with a broken rule, and returns what the verifier printed.
fn explore(fault: &str) -> Result<String> {
    if !process::exists("cc") {
        return Err(Absent::new("no C compiler").into());
    }
    let protocol = workspace::this()?.root.join(PROTOCOL);
    let folder = temporary::Folder::new()?;
    let run = |program: &Path, arguments: &[&str]| {
        let mut command = process::command(&program.to_string_lossy(), folder.path());
        process::capture(command.args(arguments))
    };
    run(spin()?, &["-a", &format!("-DFAULT={fault}"), &protocol.to_string_lossy()])?;
    run(Path::new("cc"), &["-O1", "-w", "-DSAFETY", "-o", "verifier", "pan.c"])?;
    let printed = run(&folder.path().join("verifier"), &[DEPTH])?;
    ensure!(!printed.contains("search depth too small"), "{}", printed.trim_end());
    Ok(printed)
}

/// Returns spin's program, from Debian's package.
fn spin() -> Result<&'static Path> {
    static SPIN: Shared<PathBuf> = Shared::new();
    let program = SPIN.get(|| {
        let unpack = |apt: &Apt, folder: &Path| apt.unpack("spin", &["./usr/bin/spin"], folder);
        let folder = apt::cached(workspace::this()?, Suite::Stable, "spin", unpack);
        Ok(folder.or_absent("spin")?.join("usr/bin/spin"))
    });
    program.map(PathBuf::as_path)
}
