//! Guests that misbehave, and a guest that they must not affect. All guests share one image, and
//! the command line selects the guest. A hypervisor runs two at a time, and the first must behave
//! as if it ran alone.
//!
//! | words | guest |
//! |---|---|
//! | `ticks=N` | measures the delay from its timer's deadlines to its handler, N times; with `timer=physical`, of its physical timer |
//! | `attack=NAME milliseconds=N` | uses its virtual GIC as no driver does, or writes every system register |
//! | `scan=N` | reads every system register N times |
//! | `checks=N` | checks N times that the machine does what its ID registers say |
//! | `absent=N` | reads N times where no device is |
//! | `delay=N` | delays for N microseconds |
//! | `device=N` | moves the memory of its PCI device for N milliseconds |
//! | `stray=N` | lets its PCI device access memory at address N, which is outside the guest |
#![no_std]
#![no_main]

extern crate alloc;

mod attacks;
mod checks;
mod commands;
mod crowd;
mod device;
mod exceptions;
mod fixed;
mod leaks;
mod machine;
mod messages;
mod random;
mod registers;
mod ticker;
mod turns;

use doorbell_facts::{Fact, HostileFact};
use dtoolkit::Node;
use dtoolkit::fdt::Fdt;
use dtoolkit::standard::NodeStandard;
use image_rt::power::{self, CpuStack};
use image_rt::{Boot, println, start};

image_rt::image!(main);

/// A guest, with the number that follows its word.
type Guest = fn(u64) -> !;

fn main(boot: Boot) -> ! {
    // SAFETY: `boot` is the value that the entry point received, and `main` is called only once.
    let around = unsafe { start::start(boot) };
    let words = around.command_line();
    assert!(has_psci(around.devicetree), "the devicetree has no PSCI 0.2");
    let value = |name: &str| {
        words.split_ascii_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
    };
    let number = |name| value(name).and_then(|value| value.parse::<u64>().ok());
    machine::find_memory(around.memory.start as u64);
    let ticker: Guest = match value("timer") {
        Some("physical") => |ticks| ticker::run(ticks, &ticker::PHYSICAL),
        _ => |ticks| ticker::run(ticks, &ticker::VIRTUAL),
    };
    let guests: [(&str, Guest); 7] = [
        ("ticks", ticker),
        ("scan", leaks::scan),
        ("checks", checks::run),
        ("absent", checks::absent),
        ("delay", ticker::delay),
        ("device", device::keep_using),
        ("stray", device::stray),
    ];
    for (name, guest) in guests {
        if let Some(argument) = number(name) {
            guest(argument);
        }
    }
    let name =
        value("attack").expect("the command line must select a guest, such as `attack=NAME`");
    let attack = attacks::named(name).unwrap_or_else(|| panic!("no attack is called `{name}`"));
    let milliseconds =
        number("milliseconds").expect("the command line must contain `milliseconds=N`");
    turns::select(attack, milliseconds);
    for other in 1..number("vcpus").unwrap_or(1) {
        power::cpu_on(other as usize, other, CpuStack::new(), turns::attack_and_turn_off)
            .expect("a vCPU could not be turned on");
    }
    let turns = turns::attack_here();
    let (attack, exceptions) = (name.into(), exceptions::taken());
    println!("{}", Fact::from(HostileFact::Attacked { attack, turns, exceptions }));
    power::system_off()
}

/// Returns `true` if the devicetree describes PSCI to a kernel that knows only PSCI 0.2.
fn has_psci(devicetree: &'static [u8]) -> bool {
    let psci = Fdt::new(devicetree).ok().and_then(|tree| tree.root().child("psci"));
    psci.is_some_and(|psci| psci.is_compatible("arm,psci-0.2"))
}
