//! Brings up the machine and creates its guests from the files that the loader placed in memory.

use crate::controller::Controller;
use crate::devicetree::{self, DEVICETREE_ROOM, Files, Machine};
use crate::flash::{Flash, WRITABLE};
use crate::fw_cfg::FwCfg;
use crate::options::Options;
use crate::uart::{self, Uart};
use crate::virt::{self, Virt};
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;
use el2_passthrough::{Candidate, GuestSmmu, Pci, candidates, confine, deal};
use el2_vm::{Guest, GuestConfig, Ram, Start, irqchip};
use image_rt::boot::RAM;
use image_rt::start::{self, Started};
use image_rt::{Boot, cpu, println};
use vgic::VgicConfig;

/// Alignment of guest RAM. A kernel is loaded at an offset from a 2 MiB boundary
/// (Documentation/arch/arm64/booting.rst).
const KERNEL_ALIGNMENT: u64 = 2 << 20;

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
    let description = gic_firmware::devicetree::parse(around.devicetree);
    el2_vm::bring_up(description.expect("the devicetree could not be parsed"), &options.run);
    let guests = make_guests(&around, options);
    el2_vm::run(guests, &options.run)
}

/// Creates a guest for each kernel that the loader provides.
fn make_guests(around: &Started, options: Options) -> Vec<(Guest, Start)> {
    let description = irqchip::get().description();
    let vcpus = options.vcpus.unwrap_or(irqchip::get().cpus().count() as u16);
    let host = description.hosts.first();
    let smmu = options.guest_smmu.then(|| {
        let host = host.expect("the machine has no PCI host");
        Arc::new(GuestSmmu::find(host, vcpus))
    });
    let files = devicetree::files(around.devicetree);
    check(options, &files, around);
    let functions = host.map(|host| candidates(host, &virt::INTX, options.trusted_guest));
    let dealt = deal(&functions.unwrap_or_default(), files.len());
    let uart = |guest| if files.len() == 1 { Uart::own() } else { Uart::emulated(guest) };
    let uarts: Vec<_> = (0..files.len()).map(uart).collect();
    uart::serve(&uarts);
    if let Some(smmu) = &smmu {
        smmu.serve();
    }
    let first = |files| first(files, options);
    let mut guests = Vec::new();
    // A guest's RAM extends from its kernel to the next one.
    let ends = files.iter().skip(1).map(first).chain([(around.memory.end as u64).min(RAM.end)]);
    let parts = files.iter().zip(ends).zip(dealt).zip(uarts).enumerate();
    for (number, (((files, end), functions), uart)) in parts {
        let (flash, start) =
            if options.firmware { flash(files) } else { (Flash::without_image(), first(files)) };
        // Nothing translates the addresses that a trusted guest's devices use.
        let address = if options.trusted_guest { start } else { virt::RAM };
        let ram = Ram::new(address, start..end);
        let files = files.placed_in(&ram);
        let mut linked: Vec<_> = functions.iter().filter_map(Candidate::line).collect();
        linked.extend(uart.linked());
        linked.sort_unstable();
        linked.dedup();
        confine(number, &ram, &functions);
        let mut gic = options.controller.added_to(VgicConfig::new(vcpus));
        if let Some(smmu) = &smmu {
            gic = gic.with_redistributors(Vec::from([smmu.redistributors()]));
        }
        let (megabytes, count) = ((end - start) >> 20, functions.len());
        let powered_by_cpus = options.controller == Controller::PoweredLpi;
        let config = GuestConfig { number, ram: ram.clone(), gic, linked, powered_by_cpus };
        let mut argument = 0;
        let guest = Guest::new(config, |gic| {
            let pci =
                host.map(|host| Pci::assign(host, functions, virt::INTX, (gic, smmu.clone())));
            let machine = Machine {
                gic: gic.config(),
                pci: pci.as_ref(),
                ram: ram.guest.clone(),
                files: &files,
                devices: virt::nodes().into(),
            };
            argument = place_devicetree(&ram, &files, machine);
            Box::new(Virt { uart, flash, fw_cfg: FwCfg::new(), pci })
        });
        println!(
            "hypervisor: a guest of {vcpus} vCPUs with {megabytes} MiB and {count} PCI functions"
        );
        let entry = files.kernel.start.saturating_add(options.entry);
        guests.push((guest, Start { entry, argument }));
    }
    guests
}

/// Panics if the machine, the files and the options do not fit together.
fn check(options: Options, files: &[Files], around: &Started) {
    assert!(
        !files.is_empty(),
        "the loader left no kernel for a guest: pass -device guest-loader,kernel=…"
    );
    // The image, its heap and the machine's devicetree are below the first kernel.
    assert!(
        (around.devicetree.as_ptr().addr() as u64) < first(&files[0], options),
        "the devicetree is in RAM of a guest"
    );
    assert!(!options.guest_smmu || files.len() == 1, "a guest that owns the SMMU must be alone");
    assert!(
        !options.guest_smmu || options.controller.is_direct(),
        "guest-smmu also needs controller=direct-lpi or controller=permanent-lpi"
    );
}

/// Returns the start of the RAM of a guest with these files.
fn first(files: &Files, options: Options) -> u64 {
    let kernel = files.kernel.start;
    let offset = options.offset.unwrap_or(kernel % KERNEL_ALIGNMENT);
    kernel.checked_sub(offset).expect("the kernel's offset is too large")
}

/// Returns the flash of a guest that starts from firmware, and the address of the RAM behind it.
fn flash(files: &Files) -> (Flash, u64) {
    const PAGE: u64 = 0x1000;
    let firmware = files.kernel.start..files.kernel.end.next_multiple_of(PAGE);
    assert!(firmware.start.is_multiple_of(PAGE), "firmware must be at the start of a page");
    let end = (firmware.end + WRITABLE).next_multiple_of(KERNEL_ALIGNMENT);
    (Flash::new(firmware), end)
}

/// Writes the guest's devicetree to the end of its RAM, because kernels may require that it is
/// behind them, and returns the guest physical address. If there is room before the kernel, it is
/// also at the start, where firmware for `virt` expects it.
fn place_devicetree(ram: &Ram, files: &Files, machine: Machine<'_>) -> u64 {
    let Range { start, end } = ram.guest;
    let blob = machine.devicetree();
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
