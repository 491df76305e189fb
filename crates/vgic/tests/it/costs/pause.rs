//! Measures how long a large machine has to pause to be saved and restored.

use super::machine::{Machine, largest, start};
use super::proportion::cpu_of;
use doorbell_test_support::guest::{mapd, mapti, unmapd};
use rustix::time::{ClockId, clock_gettime};
use std::time::Duration;
use vgic::{Vcpu, Vgic};

/// Returns the processor time of this thread. The value in `/proc/thread-self/schedstat` is too
/// coarse: it advances in steps of 4 ms while the thread runs.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap()
}

/// Returns the processor times of a save, of a restore into a fresh machine, and of a restore into
/// this machine: the minimum of several rounds.
fn pause(machine: &mut Machine) -> [Duration; 3] {
    fn time<T>(act: impl FnOnce() -> T) -> (T, Duration) {
        let start = processor_time();
        (act(), processor_time().saturating_sub(start))
    }
    let round = || {
        let kicks = machine.kicks.clone();
        let (gic, mut vcpus) = Vgic::new(largest(), machine.ram.clone(), kicks).unwrap();
        let (saved, saving) = time(|| machine.save());
        let _paused: Vec<_> = vcpus.iter_mut().map(Vcpu::pause).collect();
        let ((), there) = time(|| gic.restore(&saved).unwrap());
        let ((), here) = time(|| machine.restore(&saved));
        [saving, there, here]
    };
    let rounds: Vec<_> = std::iter::repeat_with(round).take(3).collect();
    [0, 1, 2].map(|part| rounds.iter().map(|round| round[part]).min().unwrap())
}

#[test]
fn pause_time_is_proportional_to_mappings() {
    let mut machine = start(largest());
    let (few, many) = (64, 12 << 16);
    let none = pause(&mut machine);
    for device in 0..12 {
        machine.run([mapd(device, 16, 0)]);
    }
    machine.run((0..many).map(|n| mapti(n >> 16, n & 0xffff, 8192 + n, cpu_of(n))));
    let all = pause(&mut machine);
    machine.run((0..12).map(unmapd));
    machine.run([mapd(0, 16, 0)]);
    machine.run((0..few).map(|n| mapti(0, n << 10, 8192 + n, cpu_of(n))));

    let part = pause(&mut machine);

    // Without mappings, the pause is spent on the wired interrupts of 512 vCPUs.
    let of_mappings = |pause: [Duration; 3]| [0, 1, 2].map(|at| pause[at].saturating_sub(none[at]));
    let (part, all) = (of_mappings(part), of_mappings(all));
    assert!(part.iter().zip(&all).all(|(part, all)| *part * 8 < *all), "{part:?} of {all:?}");
}
