//! Several guests in one image, selected by its command line. A hypervisor runs two of them at
//! once, and the first must fare as if it were alone.
//!
//! | words | guest |
//! |---|---|
//! | `ticks=N` | counts the counter's ticks from its timer's deadlines to its handler |
//! | `attack=NAME milliseconds=N` | does to its virtual GIC what no driver does, or writes every system register |
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
mod turns;

use attacks::Attack;
use doorbell_facts::{Fact, HostileFact};
use dtoolkit::Node;
use dtoolkit::fdt::Fdt;
use dtoolkit::standard::NodeStandard;
use image_rt::power::{self, CpuStack};
use image_rt::{Boot, cpu, println, start};
use spin::Once;
use turns::Turns;

image_rt::image!(main);

/// The attack, and its milliseconds.
static ATTACK: Once<(Attack, u64)> = Once::new();

fn main(boot: Boot) -> ! {
    // SAFETY: what the loader handed over, before anything else.
    let around = unsafe { start::start(boot) };
    let words = around.command_line();
    assert!(has_psci(around.devicetree), "the devicetree has no PSCI 0.2");
    let value = |name: &str| {
        words.split_ascii_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
    };
    let number = |name| value(name).and_then(|value| value.parse::<u64>().ok());
    if let Some(ticks) = number("ticks") {
        ticker::run(ticks);
    }
    if let Some(times) = number("scan") {
        leaks::scan(times);
    }
    if let Some(microseconds) = number("delay") {
        delay::run(microseconds);
    }
    let name = value("attack").expect("what to do, on the command line");
    let attack = attacks::named(name).unwrap_or_else(|| panic!("no attack is called `{name}`"));
    let milliseconds = number("milliseconds").expect("`milliseconds=N` on the command line");
    machine::find_memory(around.memory.start as u64);
    ATTACK.call_once(|| (attack, milliseconds));
    for other in 1..number("vcpus").unwrap_or(1) {
        power::cpu_on(other as usize, other, CpuStack::new(), || {
            attack_here();
            power::cpu_off();
        })
        .expect("CPU_ON");
    }
    let turns = attack_here();
    let (attack, exceptions) = (name.into(), exceptions::taken());
    println!("{}", Fact::from(HostileFact::Attacked { attack, turns, exceptions }));
    power::system_off()
}

/// Attacks for its time, on the vCPU that executes this. Says how often.
fn attack_here() -> u64 {
    cpu::irq_save();
    exceptions::install();
    let &(attack, milliseconds) = ATTACK.get().expect("it is chosen first");
    let mut turns = Turns::until(milliseconds);
    attack(&mut turns);
    turns.count()
}

/// Returns true if a kernel that knows only PSCI 0.2 finds PSCI in the devicetree.
fn has_psci(devicetree: &'static [u8]) -> bool {
    let psci = Fdt::new(devicetree).ok().and_then(|tree| tree.root().child("psci"));
    psci.is_some_and(|psci| psci.is_compatible("arm,psci-0.2"))
}
