//! Drivers on the simulated machine, with every disturbance, and the machine's own judge.

use crate::outcome::Outcome;
use doorbell_machine::{
    BuildOptions, CpuHotplug, DeviceHotplug, Disturbances, Migration, Moves, RunOptions,
    Suspensions, build, embedded, run as run_machine,
};
use fastrand::Rng;

/// Sends about `messages` messages, on a random embedded machine.
pub(crate) fn run(seed: u64, messages: u64) -> Outcome {
    let mut rng = Rng::with_seed(seed);
    let machines = embedded::machines();
    let chosen = &machines[rng.usize(..machines.len())];
    let description = chosen.firmware.describe().unwrap();
    let migrates = rng.u8(..4) != 0;
    let migration = if migrates { Migration::AtRandom { seed } } else { Migration::default() };
    let options = BuildOptions { migration, ..BuildOptions::default() };
    let devices = |is_readded| {
        if is_readded { DeviceHotplug::Readded } else { DeviceHotplug::Stay }
    };
    let cpus =
        |is_replugged| if is_replugged { CpuHotplug::Replugged } else { CpuHotplug::AlwaysOn };
    let suspensions = if rng.bool() { Suspensions::NowAndThen } else { Suspensions::None };
    let disturbances = Disturbances {
        moves: Moves::Random,
        cpus: cpus(rng.bool()),
        devices: devices(rng.bool()),
        suspensions,
    };
    let mut outcome = Outcome::new(format!("{}, migrates: {migrates}", chosen.name));
    let mut each = 10;
    for turn in 0.. {
        let machine = build(&description, &options).unwrap();
        let chosen = RunOptions { messages: each, seed: seed.wrapping_add(turn), disturbances };
        let report = run_machine(machine, &chosen, &mut |_| {}).unwrap();
        let totals = report.totals;
        assert!(totals.is_clean(), "{}: {totals:?}", report.machine);
        outcome.messages += totals.sent;
        for (name, count) in [
            ("moves", totals.moves),
            ("migrations", totals.migrated),
            ("devices added again", totals.readded),
            ("CPUs plugged again", totals.replugged),
            ("suspensions", totals.suspended),
        ] {
            outcome.count(name, count);
        }
        // The first, short run reveals the number of vectors.
        let left = messages.saturating_sub(outcome.messages);
        if left == 0 {
            break;
        }
        each = u32::try_from(left / totals.vectors.max(1) + 1).unwrap_or(u32::MAX);
    }
    outcome
}
