//! A QEMU of the cache beside a QEMU of another build that is installed on this machine.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use anyhow::Result;
use doorbell_harness::process;
use doorbell_harness::qemu::{self, PROGRAM, Version};
use doorbell_harness::suite::OrAbsent;
use doorbell_harness::temporary::Folder;
use doorbell_harness::workspace;

use crate::fetched;

/// Lays the folder `$1` over the folder `$2`, and then runs the other arguments.
const LAY_OVER: &str = "mount -t overlay overlay -o lowerdir=\"$1:$2\" \"$2\" && shift 2 && \"$@\"";

/// Checks that each QEMU uses its own modules if another one has been installed. Listing the
/// devices loads all modules that QEMU finds.
///
/// # Errors
/// Fails if a QEMU ends unsuccessfully.
pub(crate) fn judge() -> Result<()> {
    let workspace = workspace::this()?;
    let newest = qemu::fetch_unstable(workspace).or_absent("the newest QEMU")?;
    let [stable, backports] = [Version::Stable, Version::Backports].map(fetched::qemu);
    let all = [stable?, backports?, &newest];
    let over = Folder::new()?;
    for (tools, other) in all.iter().zip(all.iter().cycle().skip(1)) {
        let modules = over.path().join("qemu");
        if modules.exists() {
            fs::remove_file(&modules)?;
        }
        symlink(libraries(other.root()).join("qemu"), modules)?;
        let mut nothing = inside(over.path(), &Command::new("true"));
        if !process::output(&mut nothing)?.status.success() {
            Err(anyhow::format_err!("not permitted")).or_absent("a mount namespace")?;
        }
        let mut qemu = tools.command(PROGRAM);
        qemu.args(["-M", "none", "-display", "none", "-device", "help"]);
        process::capture(&mut inside(over.path(), &qemu))?;
    }
    Ok(())
}

/// Returns a command that runs `command` where the folder `over` is laid over this machine's
/// libraries.
fn inside(over: &Path, command: &Command) -> Command {
    let mut outer = Command::new("unshare");
    outer.args(["--map-root-user", "--mount", "sh", "-c", LAY_OVER, "sh"]);
    outer.arg(over).arg(libraries(Path::new("/")));
    outer.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => outer.env(name, value),
            None => outer.env_remove(name),
        };
    }
    outer
}

fn libraries(root: &Path) -> PathBuf {
    root.join(format!("usr/lib/{}-linux-gnu", env::consts::ARCH))
}
