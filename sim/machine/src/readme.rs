//! Tests that run the kernel of `gic-bringup`'s README as the guest of the README's monitor.

use doorbell_hardware::platform::MachinePlatform;
use gic_bringup::Irqchip;
use guest::{GuestKernel, ram};
use irq_routing::msix::{MsixTable, Signaled};
use msi_types::{Cpu, Delivery};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::channel;
use vmm::Vm;

mod guest;
#[expect(unreachable_pub, reason = "readers copy the example into a reachable module")]
#[expect(dead_code, reason = "the guest's functions are the monitor's tables, without registers")]
mod kernel;
#[expect(unreachable_pub, reason = "readers copy the example into a reachable module")]
mod monitor;
mod printed;
#[expect(unreachable_pub, reason = "readers copy the example into a reachable module")]
mod program;
mod saved_machine;
#[expect(unreachable_pub, reason = "readers copy the example into a reachable module")]
mod vmm;

const README: &str = include_str!("../../../README.md");

#[test]
fn the_readme_shows_tested_examples() {
    for example in
        [include_str!("../../../images/alone/src/main.rs"), include_str!("readme/monitor.rs")]
    {
        assert!(
            README.contains(&format!("```rust\n{example}```\n")),
            "not in README.md:\n{example}"
        );
    }
    assert_eq!(README.matches("```rust\n").count(), 2, "each of README.md's examples is tested");
}

#[test]
fn the_vgic_monitor_package_shows_the_readme_example() {
    let library = include_str!("../../../crates/vgic-monitor/src/lib.rs");
    let example = include_str!("readme/monitor.rs");
    // Comments of the library have fewer columns, so a signature takes more lines there.
    let words = |text: &str| text.replace("//!", "").split_whitespace().collect::<String>();
    let packed = |text: &str| words(text).replace(",)", ")");
    assert!(packed(library).contains(&packed(example)));
    let page = include_str!("../../../crates/vgic-monitor/README.md");
    assert!(page.contains(&format!("```rust\n{example}```\n")));
}

/// Guides, each with the tested files that its Rust code is taken from.
const GUIDES: [(&str, &[&str]); 3] = [
    (
        include_str!("../../../docs/guides/kernel.md"),
        &[
            include_str!("../../../images/image-rt/src/platform.rs"),
            include_str!("../../../images/image-rt/src/platform/with_heap.rs"),
            include_str!("../../../images/minimal/src/pci.rs"),
            include_str!("../../../images/minimal/src/bin/disk.rs"),
        ],
    ),
    (
        include_str!("../../../docs/guides/monitor.md"),
        &[
            include_str!("readme/vmm.rs"),
            include_str!("readme/program.rs"),
            include_str!("../../../crates/irq-routing/examples/iommu.rs"),
        ],
    ),
    (
        include_str!("../../../docs/guides/el2.md"),
        &[
            include_str!("../../../el2/one-vcpu/src/main.rs"),
            include_str!("../../../el2/vm/src/interrupts.rs"),
            include_str!("../../../el2/vm/src/scheduler.rs"),
            include_str!("../../../el2/vm/src/standstill.rs"),
            include_str!("../../../el2/vm/src/traps.rs"),
            include_str!("../../../el2/vm/src/vcpu.rs"),
        ],
    ),
];

#[test]
fn the_program_in_the_guide_takes_its_interrupt() {
    program::main().unwrap();
}

#[test]
fn guides_show_excerpts_of_tested_files() {
    for (guide, files) in GUIDES {
        let blocks: Vec<_> = guide.split("```rust\n").skip(1).collect();
        assert!(!blocks.is_empty(), "a guide has code");
        for block in blocks {
            let (excerpt, _) = block.split_once("```").expect("the block ends");
            // An excerpt may be the body of a function or of a loop.
            let indented = [0, 4, 8].map(|spaces| {
                let indent = format!("\n{:spaces$}", "");
                format!("\n{excerpt}").trim_end().replace('\n', &indent) + "\n"
            });
            let is_shown = |text: &String| files.iter().any(|it| format!("\n{it}").contains(text));
            assert!(indented.iter().any(is_shown), "not in a tested file:\n{excerpt}");
        }
    }
}

#[test]
fn the_readme_kernel_handles_the_signals_of_the_readme_monitor() {
    let ram = ram();
    let (machine, mut vcpus) = Vm::new(ram.clone()).unwrap();
    let machine = Arc::new(machine);
    let (done, is_done) = channel();
    let signaling = machine.clone();
    let program = move |guest: &GuestKernel, irqchip: &_| {
        take_signals(guest, irqchip, &signaling.function);
        done.send(()).unwrap();
    };
    let mut cpus = GuestKernel::start(&machine.gic, ram, program);
    let mut passed = false;
    vmm::run(&machine, &mut vcpus, &mut cpus, || passed = is_done.recv().is_ok());
    assert!(passed, "the guest panicked");
}

/// Takes a vector's interrupts on two CPUs, and then frees the vector.
fn take_signals(guest: &GuestKernel, irqchip: &Irqchip<MachinePlatform>, function: &MsixTable) {
    let runs: Arc<[AtomicU32; 4]> = Arc::default();
    let counted = runs.clone();
    let kernel::Pci { handle, device } = guest.probe(irqchip, move |context| {
        counted[context.cpu().index()].fetch_add(1, Ordering::Relaxed);
    });
    let runs = || runs.each_ref().map(|runs| runs.load(Ordering::Relaxed));

    assert_eq!(function.signal(0), Signaled::Sent(Delivery::Pending));
    guest.wait(|| runs() == [1, 0, 0, 0]); // on the boot CPU

    handle.set_affinity(Cpu::new(3)).unwrap();
    assert_eq!(function.signal(0), Signaled::Sent(Delivery::Pending));
    guest.wait(|| runs() == [1, 0, 0, 1]);

    drop(handle);
    assert_eq!(function.signal(0), Signaled::Held, "without the handle the vector is masked");
    assert!(function.control().enable());
    drop(device);
    assert!(!function.control().enable(), "without the device there is no vector");
    assert_eq!((function.signal(0), function.message(0)), (Signaled::Held, None));
    assert_eq!(runs(), [1, 0, 0, 1], "no handler ran");
}
