//! Guests that misbehave, and a guest that they must not affect. All guests share one image, and
//! the command line selects the guest. A hypervisor runs two at a time, and the first must behave
//! as if it ran alone.
//!
//! | words | guest |
//! |---|---|
//! | `ticks=N` | measures the delay from its timer's deadlines to its handler, N times; with `timer=physical`, of its physical timer |
//! | `transports=N` | checks that each of N virtio-mmio transports has no device |
//! | `attack=NAME milliseconds=N` | uses its virtual GIC as no driver does, or writes every system register |
//! | `scan=N` | reads every system register N times |
//! | `delay=N` | delays for N microseconds |
#![no_std]
#![no_main]

extern crate alloc;

mod attacks;
mod commands;
mod delay;
mod exceptions;
mod leaks;
mod machine;
mod random;
mod registers;
mod ticker;
mod transports;
mod turns;

use attacks::Attack;
use doorbell_facts::{Fact, HostileFact};
use dtoolkit::Node;
use dtoolkit::fdt::Fdt;
use dtoolkit::standard::NodeStandard;
use image_rt::power::{self, CpuStack};
use image_rt::{Boot, cpu, println, start};
use spin::Once;
use ticker::Timer;
use turns::Turns;

image_rt::image!(main);

/// The selected attack, and its duration in milliseconds.
static ATTACK: Once<(Attack, u64)> = Once::new();

fn main(boot: Boot) -> ! {
    // SAFETY: `boot` is the value that the entry point received, and `main` is called only once.
    let around = unsafe { start::start(boot) };
    let words = around.command_line();
    assert!(has_psci(around.devicetree), "the devicetree has no PSCI 0.2");
    let value = |name: &str| {
        words.split_ascii_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
    };
    let number = |name| value(name).and_then(|value| value.parse::<u64>().ok());
    if let Some(ticks) = number("ticks") {
        let is_physical = value("timer") == Some("physical");
        ticker::run(ticks, if is_physical { Timer::Physical } else { Timer::Virtual });
    }
    if let Some(count) = number("transports") {
        transports::check(count);
    }
    if let Some(times) = number("scan") {
        leaks::scan(times);
    }
    if let Some(microseconds) = number("delay") {
        delay::run(microseconds);
    }
    let name =
        value("attack").expect("the command line must select a guest, such as `attack=NAME`");
    let attack = attacks::named(name).unwrap_or_else(|| panic!("no attack is called `{name}`"));
    let milliseconds =
        number("milliseconds").expect("the command line must contain `milliseconds=N`");
    machine::find_memory(around.memory.start as u64);
    ATTACK.call_once(|| (attack, milliseconds));
    for other in 1..number("vcpus").unwrap_or(1) {
        power::cpu_on(other as usize, other, CpuStack::new(), || {
            attack_here();
            power::cpu_off();
        })
        .expect("a vCPU could not be turned on");
    }
    let turns = attack_here();
    let (attack, exceptions) = (name.into(), exceptions::taken());
    println!("{}", Fact::from(HostileFact::Attacked { attack, turns, exceptions }));
    power::system_off()
}

/// Runs the attack on this vCPU until its duration has elapsed. Returns the number of turns.
fn attack_here() -> u64 {
    cpu::irq_save();
    exceptions::install();
    let &(attack, milliseconds) = ATTACK.get().expect("the attack is selected before vCPUs start");
    let mut turns = Turns::until(milliseconds);
    attack(&mut turns);
    turns.count()
}

/// Returns `true` if the devicetree describes PSCI to a kernel that knows only PSCI 0.2.
fn has_psci(devicetree: &'static [u8]) -> bool {
    let psci = Fdt::new(devicetree).ok().and_then(|tree| tree.root().child("psci"));
    psci.is_some_and(|psci| psci.is_compatible("arm,psci-0.2"))
}
