//! Programs that several steps wait for. They are built while the steps before leave a CPU idle.

use std::process::ExitCode;
use std::thread;

use doorbell_harness::image::Image;
use doorbell_harness::toolchain::{BARE_TARGET, JUDGE_TARGET, SOFT_FLOAT_TARGET, need_target};
use doorbell_harness::workspace::Workspace;
use doorbell_harness::{command, small_linux, wasm};
use rustix::process;

use crate::step::Tier;

/// Targets that the programs are built for.
const TARGETS: [&str; 4] = [BARE_TARGET, SOFT_FLOAT_TARGET, JUDGE_TARGET, wasm::TARGET];
/// Niceness that leaves other processes nearly all of a CPU's time.
const IDLE: i32 = 19;

/// Runs `steps`, and builds the programs at the same time.
pub(crate) fn beside(
    workspace: &Workspace,
    tier: Tier,
    steps: impl FnOnce() -> ExitCode,
) -> ExitCode {
    // First of all, because rustup should not add two targets at the same time.
    let targets = TARGETS.map(|target| need_target(&workspace.root, target));
    thread::scope(|scope| {
        if targets.iter().all(Result::is_ok) {
            scope.spawn(|| build(workspace, tier));
        }
        steps()
    })
}

/// Builds the programs, in the order in which steps need them. Ignores errors, because the steps
/// build the programs again, and report what fails.
///
/// On Linux, the niceness is that of the calling thread and of the processes that it starts.
fn build(workspace: &Workspace, tier: Tier) {
    if process::nice(IDLE).is_err() {
        return;
    }
    let _ = command::build(workspace);
    let _ = Image::build(workspace, "testbench", "testbench");
    let _ = Image::build(workspace, "hypervisor", "hypervisor");
    if tier > Tier::First {
        let _ = wasm::build(workspace);
        let _ = small_linux::build_program(workspace, "kvm-judge", 1);
    }
}
