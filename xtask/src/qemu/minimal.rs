//! The smallest kernels: each says in one line that it took its interrupt.

use anyhow::{Result, ensure};

use super::image::Image;
use super::{LIMIT, PROGRAM, Version};
use crate::dtb::Tools;
use crate::process;
use crate::step::Tally;
use crate::workspace::Workspace;

const MACHINES: [&str; 2] = ["virt,gic-version=3,its=on", "virt,gic-version=2"];

/// A kernel, and the beginning of the line that it ends with.
pub(super) struct Kernel {
    name: &'static str,
    says: &'static str,
    devices: &'static [&'static str],
    image: Image,
}

/// Builds all of them.
pub(super) fn build(workspace: &Workspace) -> Result<Vec<Kernel>> {
    let image = |name| Image::build(workspace, "minimal", name);
    Ok(vec![
        Kernel {
            name: "tick",
            says: "ok - three ticks of the timer",
            devices: &[],
            image: image("tick")?,
        },
        Kernel {
            name: "message",
            says: "ok - the first message",
            devices: &["edu"],
            image: image("message")?,
        },
    ])
}

impl Kernel {
    /// Runs it with each GIC.
    pub(super) fn judge(&self, tools: &Tools, version: Version, tally: &mut Tally) {
        for machine in MACHINES {
            let name = format!("{} on {machine} of {version:?}'s QEMU", self.name);
            tally.case(&name, self.run(tools, machine));
        }
    }

    fn run(&self, tools: &Tools, machine: &str) -> Result<()> {
        let mut qemu = tools.command(PROGRAM);
        qemu.args(["-nodefaults", "-display", "none", "-serial", "stdio", "-m", "512M"]);
        qemu.args(["-M", machine, "-cpu", "cortex-a57"]).arg("-kernel").arg(&self.image.flat);
        for device in self.devices {
            qemu.args(["-device", device]);
        }
        let mut lines = Vec::new();
        let status =
            process::watch(&mut qemu, LIMIT, |line| lines.push(line.trim_end().to_owned()))?;
        ensure!(status.success(), "QEMU ended with {status}");
        ensure!(self.is_said_by(&lines), "it says {lines:?}");
        Ok(())
    }

    fn is_said_by(&self, lines: &[String]) -> bool {
        matches!(lines, [line] if line.starts_with(self.says))
    }
}
