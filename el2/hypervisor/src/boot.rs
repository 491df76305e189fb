//! Brings up the machine and creates its guests from the files that the loader placed in memory.

use crate::controller::Controller;
use crate::devicetree::{self, DEVICETREE_ROOM, Files, Machine};
use crate::flash::{Flash, WRITABLE};
use crate::guest::{self, Guest, GuestConfig};
use crate::guest_smmu::{self, GuestSmmu};
use crate::layout::Uart;
use crate::options::Options;
use crate::pci::{self, Candidate, Pci};
use crate::power::Start;
use crate::ram::{Placement, Ram};
use crate::{dma, exits, hypervisor_timer, interrupts, irqchip, moving, scheduler, trace, vcpu};
use alloc::string::ToString;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::iter;
use core::ops::Range;
use doorbell_facts::{Fact, HypervisorFact};
use image_rt::pci::Function;
use image_rt::power::{self, CpuStack};
use image_rt::start::{self, Started};
use image_rt::{Boot, cpu, println};
use msi_types::Cpu;

/// Alignment of guest RAM. A kernel is loaded at an offset from a 2 MiB boundary (same document).
const KERNEL_ALIGNMENT: u64 = 2 << 20;
/// End of the RAM mapped by the image.
const MAPPED_END: u64 = 3 << 30;

/// Boots the guests on every CPU.
pub(crate) fn main(boot: Boot) -> ! {
    // SAFETY: `boot` is the value that the entry point received, and `main` is called only once.
    let around = unsafe { start::start(boot) };
    assert_eq!(
        cpu::level(),
        cpu::Level::El2,
        "the hypervisor must run at EL2: start QEMU with virtualization=on"
    );
    let options = Options::parse(around.command_line());
    exits::record(options.stats, options.exits);
    let description = gic_firmware::devicetree::parse(around.devicetree);
    irqchip::bring_up(description.expect("the devicetree could not be parsed"));
    let cpus = irqchip::get().cpus().count() as u32;
    if options.trace {
        trace::start(cpus);
    }
    options.limit.into_iter().for_each(hypervisor_timer::set_limit);
    let vcpus = options.vcpus.unwrap_or(cpus as u16);
    let smmu = options.guest_smmu.then(|| guest_smmu(vcpus));
    let starts = make_guests(&around, options, cpus, smmu.as_ref());
    interrupts::serve();
    if let Some(smmu) = smmu {
        interrupts::serve_smmu(&smmu);
        if smmu.doorbells.is_some() {
            guest_smmu::start();
        }
    }
    for cpu in (1..cpus).map(Cpu::new) {
        turn_on(cpu);
    }
    for (guest, start) in guest::guests().iter().zip(starts) {
        guest.start(Cpu::new(0), start);
    }
    if let Some(milliseconds) = options.moves {
        moving::start(milliseconds);
    }
    vcpu::serve()
}

/// Returns the SMMU in front of PCI, which a guest is to own.
fn guest_smmu(vcpus: u16) -> Arc<GuestSmmu> {
    let host = irqchip::get().description().hosts.first();
    Arc::new(GuestSmmu::find(host.expect("the machine has no PCI host"), vcpus))
}

/// Creates a guest for each kernel that the loader provides. Returns the guests' start states.
fn make_guests(
    around: &Started,
    options: Options,
    cpus: u32,
    smmu: Option<&Arc<GuestSmmu>>,
) -> Vec<Start> {
    let files = devicetree::files(around.devicetree);
    assert!(
        !files.is_empty(),
        "the loader left no kernel for a guest: pass -device guest-loader,kernel=…"
    );
    let uart = if files.len() == 1 { Uart::Own } else { Uart::Shared };
    let (vcpus, controller) = (options.vcpus.unwrap_or(cpus as u16), options.controller);
    // A guest's RAM extends from its kernel to the next one. The image, its heap and the machine's
    // devicetree are below the first kernel.
    let first = |files: &Files| files.kernel.start & !(KERNEL_ALIGNMENT - 1);
    let end = (around.memory.end as u64).min(MAPPED_END);
    let ends = files.iter().skip(1).map(first).chain([end]);
    assert!(
        (around.devicetree.as_ptr().addr() as u64) < first(&files[0]),
        "the devicetree is in RAM of a guest"
    );
    assert!(smmu.is_none() || files.len() == 1, "a guest that owns the SMMU must be alone");
    assert!(
        smmu.is_none() || matches!(controller, Controller::DirectLpi | Controller::PermanentLpi),
        "guest-smmu also needs controller=direct-lpi or controller=permanent-lpi"
    );
    let functions = functions(options);
    let guests = 0..files.len();
    let mut dealt: Vec<_> = guests.map(|guest| dealt(&functions, guest, files.len())).collect();
    pci::refuse_shared_lines(&mut dealt);
    let (mut guests, mut starts) = (Vec::new(), Vec::new());
    let placement = if options.trusted_guest { Placement::Identity } else { Placement::Virt };
    for (((number, of_guest), end), mine) in files.iter().enumerate().zip(ends).zip(dealt) {
        let (flash, start) =
            if options.firmware { flash(of_guest) } else { (None, first(of_guest)) };
        let (ram, smmu) = (Ram::new(start..end, placement), smmu.cloned());
        let of_guest = &of_guest.placed_in(&ram);
        let mut lines: Vec<_> = mine.iter().filter_map(Candidate::line).collect();
        lines.sort_unstable();
        lines.dedup();
        let config = GuestConfig { number, ram, vcpus, uart, lines, controller, smmu, flash };
        dma::confine(number, &config.ram, &mine);
        let (guest, start) = make_guest(config, mine, of_guest);
        guests.push(guest);
        starts.push(start);
    }
    scheduler::install(iter::repeat_n(vcpus.into(), guests.len()));
    guest::install(guests);
    starts
}

/// Returns the flash of a guest that starts from firmware, and the address of the RAM behind it.
fn flash(files: &Files) -> (Option<Flash>, u64) {
    const PAGE: u64 = 0x1000;
    let firmware = files.kernel.start..files.kernel.end.next_multiple_of(PAGE);
    assert!(firmware.start.is_multiple_of(PAGE), "firmware must be at the start of a page");
    let end = (firmware.end + WRITABLE).next_multiple_of(KERNEL_ALIGNMENT);
    (Some(Flash::new(firmware)), end)
}

fn make_guest(config: GuestConfig, functions: Vec<Candidate>, files: &Files) -> (Guest, Start) {
    let GuestConfig { ref ram, vcpus, .. } = config;
    let (ram, count, smmu) = (ram.guest.clone(), functions.len(), config.smmu.clone());
    let guest = Guest::new(config, |gic| {
        let host = irqchip::get().description().hosts.first().filter(|_| count > 0)?;
        Some(Pci::assign(host, functions, (gic, smmu)))
    });
    let argument = place_devicetree(&guest, files);
    println!(
        "hypervisor: a guest of {vcpus} vCPUs with {} MiB and {count} PCI functions",
        (ram.end - ram.start) >> 20,
    );
    (guest, Start { entry: files.kernel.start, argument })
}

/// Returns the PCI functions that may be assigned to guests: those whose DMA an SMMU confines, or
/// all if the guests are trusted. The others are disabled, so that a function that reaches them
/// without passing the SMMU finds nothing.
fn functions(options: Options) -> Vec<Candidate> {
    let host = irqchip::get().description().hosts.first();
    let Some(host) = host else { return Vec::new() };
    let trusted = options.trusted_guest;
    if !trusted {
        // Enable the SMMU first, because enumeration lets functions access memory.
        dma::bring_up(host);
    }
    let mut functions = pci::functions(host);
    functions.retain(|Candidate { function, .. }| match dma::stream(function) {
        Err(reason) if !trusted => {
            withhold(function, &reason.to_string());
            false
        }
        _ => true,
    });
    functions
}

/// Disables a function that is not assigned to a guest.
fn withhold(function: &Function, reason: &str) {
    function.disable();
    let (function, reason) = (function.address.get(), reason.to_string().into());
    println!("{}", Fact::from(HypervisorFact::Withheld { function, reason }));
}

/// Returns the functions of a guest. Groups are dealt out round-robin.
fn dealt(functions: &[Candidate], guest: usize, guests: usize) -> Vec<Candidate> {
    let mut groups: Vec<_> = functions.iter().map(|candidate| candidate.group).collect();
    groups.sort_unstable();
    groups.dedup();
    let owner = |group: &usize| groups.binary_search(group).map(|place| place % guests);
    let mine = functions.iter().filter(|candidate| owner(&candidate.group) == Ok(guest));
    let mut mine: Vec<_> = mine.cloned().collect();
    for candidate in mine.split_off(mine.len().min(pci::MOST)) {
        withhold(&candidate.function, "its guest's bus is full");
    }
    mine
}

/// Writes the guest's devicetree to the end of its RAM, because kernels may require that it is
/// behind them, and returns the guest physical address. If there is room before the kernel, it is
/// also at the start, where firmware for `virt` expects it.
fn place_devicetree(guest: &Guest, files: &Files) -> u64 {
    let (gic, pci, ram) = (guest.vgic().config(), guest.pci.as_ref(), guest.ram());
    let Range { start, end } = ram.guest;
    let blob = Machine { gic, pci, ram: start..end, files }.devicetree();
    let room = files.kernel.start.checked_sub(start).unwrap_or(DEVICETREE_ROOM);
    let address = end - DEVICETREE_ROOM;
    assert!(blob.len() as u64 <= DEVICETREE_ROOM, "the guest's devicetree is too large");
    let last = files.initrd.as_ref().map_or(files.kernel.end, |initrd| initrd.end);
    assert!(last <= address, "the guest's files leave no room for its devicetree");
    let first = (blob.len() as u64 <= room).then_some(start);
    for copy in first.into_iter().chain([address]) {
        ram.place(copy, &blob).expect("the devicetree is in RAM");
    }
    address
}

/// Turns on a CPU of the machine, which then runs vCPUs.
fn turn_on(cpu: Cpu) {
    let mpidr = irqchip::get().affinity(cpu).expect("firmware describes this CPU").mpidr();
    let work = || {
        interrupts::bring_up_cpu();
        vcpu::serve()
    };
    power::cpu_on(cpu.index(), mpidr, CpuStack::new(), work)
        .expect("firmware could not turn on a CPU");
}
