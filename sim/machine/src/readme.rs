//! The README's kernel, which runs as the guest of the README's monitor.

use crate::cpu::{CpuRegisters, NoKick};
use doorbell_hardware::bus::{AccessWidth, Bus, MmioDevice};
use doorbell_hardware::platform::{Executing, MachinePlatform};
use doorbell_hardware::ram::{Caches, Ram};
use gic_arch::Affinity;
use gic_bringup::Irqchip;
use gic_firmware::{
    Controller, ControllerIndex, CpuNode, Description, Fact, Gic, MapEntry, MsiRouting, PciHost,
    Region, Target, devicetree,
};
use irq_domain::pci::FunctionStore;
use irq_routing::Sender;
use irq_routing::msix::{MsixTable, Signalled};
use msi_types::pci::msix;
use msi_types::{
    Cpu, Delivery, DeviceId, Fit, Masking, MessageStore, MsiMessage, RequesterId, Rewrite, Shape,
    Storage, StoreError, StoreUpdate,
};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use vgic::{Block, Vcpu, Vgic};

#[expect(unreachable_pub, reason = "readers copy the example into a reachable module")]
#[expect(dead_code, reason = "the guest's functions are the monitor's tables, without registers")]
mod kernel;
#[expect(unreachable_pub, reason = "readers copy the example into a reachable module")]
mod monitor;
mod scripted_guest;
#[expect(unreachable_pub, reason = "readers copy the example into a reachable module")]
mod vmm;

const README: &str = include_str!("../../../README.md");
const FUNCTION: RequesterId = RequesterId::pci(1, 0, 0);

#[test]
fn the_readme_shows_the_examples_that_run_here() {
    for example in [
        include_str!("../../../images/minimal/src/bin/tick.rs"),
        include_str!("readme/kernel.rs"),
        include_str!("readme/monitor.rs"),
    ] {
        assert!(
            README.contains(&format!("```rust\n{example}```\n")),
            "not in README.md:\n{example}"
        );
    }
    assert_eq!(README.matches("```rust\n").count(), 3, "each of README.md's examples runs here");
}

/// Guides, each with the tested files that its Rust code is taken from.
const GUIDES: [(&str, &[&str]); 2] = [
    (
        include_str!("../../../docs/guides/kernel.md"),
        &[
            include_str!("../../../images/image-rt/src/platform.rs"),
            include_str!("../../../images/image-rt/src/platform/with_heap.rs"),
            include_str!("../../../images/minimal/src/pci.rs"),
            include_str!("../../../images/minimal/src/bin/disk.rs"),
        ],
    ),
    (include_str!("../../../docs/guides/monitor.md"), &[include_str!("readme/vmm.rs")]),
];

#[test]
fn guides_show_excerpts_of_tested_files() {
    for (guide, files) in GUIDES {
        let blocks: Vec<_> = guide.split("```rust\n").skip(1).collect();
        assert!(!blocks.is_empty(), "a guide has code");
        for block in blocks {
            let (excerpt, _) = block.split_once("```").expect("the block ends");
            let is_shown = |file: &&str| format!("\n{file}").contains(&format!("\n{excerpt}"));
            assert!(files.iter().any(is_shown), "not in a tested file:\n{excerpt}");
        }
    }
}

/// The model's frames on the guest's bus.
struct GuestFrames {
    gic: Arc<Vgic>,
    base: u64,
}

impl MmioDevice for GuestFrames {
    fn read(&self, offset: u64, width: AccessWidth) -> u64 {
        self.gic.read(self.base + offset, width).unwrap_or(width.mask())
    }

    fn write(&self, offset: u64, width: AccessWidth, value: u64) {
        self.gic.write(self.base + offset, width, value).unwrap();
    }
}

/// The guest's view of its function's MSI-X table.
struct Table(Arc<MsixTable>);

impl Table {
    fn entry(&self, slot: u16, offset: u64, value: u32) {
        self.0.write(u64::from(slot) * msix::ENTRY_SIZE + offset, &value.to_le_bytes());
    }
}

impl StoreUpdate for &Table {
    fn write(&mut self, slot: u16, message: MsiMessage) {
        self.entry(slot, msix::ENTRY_ADDRESS_LOW, message.address_low());
        self.entry(slot, msix::ENTRY_ADDRESS_HIGH, message.address_high());
        self.entry(slot, msix::ENTRY_DATA, message.data);
    }

    fn mask(&mut self, slot: u16) {
        self.entry(slot, msix::ENTRY_CONTROL, 1);
    }

    fn unmask(&mut self, slot: u16) {
        self.entry(slot, msix::ENTRY_CONTROL, 0);
    }
}

impl MessageStore for Table {
    fn slots(&self) -> u16 {
        4
    }

    fn fit(&self) -> Fit {
        Fit::new(Rewrite::Masked)
    }

    fn masking(&self) -> Masking {
        Masking::PerVector
    }

    fn storage(&self) -> Storage {
        Storage::Bus
    }

    fn update(&self, change: &mut dyn FnMut(&mut dyn StoreUpdate)) -> Result<(), StoreError> {
        change(&mut &*self);
        Ok(())
    }

    fn set_enabled(&self, enabled: bool) -> Result<(), StoreError> {
        self.0.write_control(msix::Control::new().with_enable(enabled));
        Ok(())
    }
}

fn region(base: u64, size: u64) -> Region {
    Region::new(base, size).unwrap()
}

/// A guest before boot.
struct GuestMachine {
    guest: monitor::Guest,
    vcpus: Vec<Mutex<Vcpu>>,
    platform: Arc<MachinePlatform>,
}

impl GuestMachine {
    fn new() -> Self {
        let ram = Arc::new(Ram::new(&[region(0x4000_0000, 0x100_0000)], Caches::Snooped));
        let mut guest = monitor::create(ram.clone(), Arc::new(NoKick)).unwrap();
        let mut bus = Bus::default();
        for frames in guest.gic.regions().to_vec() {
            let (base, end) = (frames.addresses.start, frames.addresses.end);
            let device = Arc::new(GuestFrames { gic: guest.gic.clone(), base });
            bus.attach(&format!("{:?}", frames.block), region(base, end - base), device).unwrap();
        }
        let vcpus = guest.vcpus.drain(..).map(Mutex::new).collect();
        let platform = Arc::new(MachinePlatform::new(Arc::new(bus), ram));
        Self { guest, vcpus, platform }
    }

    fn registers(&self, cpu: u32) -> CpuRegisters<'_> {
        CpuRegisters(&self.vcpus[cpu as usize])
    }

    /// Returns the devicetree that the monitor passes to its guest.
    fn devicetree(&self) -> Vec<u8> {
        let frames = |wanted: fn(Block) -> bool| {
            let regions = self.guest.gic.regions().iter().filter(move |one| wanted(one.block));
            regions.map(|one| region(one.addresses.start, one.addresses.end - one.addresses.start))
        };
        let redistributors = frames(|block| matches!(block, Block::Redistributors(_)));
        let gic = Gic::v3("/intc", region(0x0800_0000, 0x1_0000), redistributors);
        let cpu =
            |number| CpuNode::new(format!("/cpus/cpu@{number}"), Affinity::new(0, 0, 0, number));
        let everyone = MapEntry {
            rid_base: RequesterId::new(0),
            length: 0x1_0000,
            target: Target::Controller(ControllerIndex::new(0)),
            device_id_base: DeviceId::new(0),
        };
        let routing =
            MsiRouting { map: Some(vec![Fact::stated(everyone)]), ..MsiRouting::default() };
        let description = Description {
            cpus: (0..4).map(cpu).collect(),
            gic: Some(gic),
            controllers: vec![Controller::its("/intc/its", region(0x0808_0000, 0x2_0000))],
            hosts: vec![PciHost::ecam("/pcie", region(0x3f00_0000, 0x10_0000), routing)],
            ..Description::default()
        };
        devicetree::write(&description).unwrap()
    }

    /// Boots the guest's kernel on all CPUs.
    fn boot(&self) -> Irqchip<MachinePlatform> {
        let blob = self.devicetree();
        let irqchip = kernel::boot(self.platform.clone(), &blob, &self.registers(0)).unwrap();
        for cpu in 1..4 {
            let _executing = Executing::in_exception(Cpu::new(cpu));
            irqchip.cpu_on(Cpu::new(cpu), &self.registers(cpu), |_| ()).unwrap();
        }
        irqchip
    }

    /// Lets the CPU take its interrupts, if any are pending.
    fn run(&self, kernel: &Irqchip<MachinePlatform>, cpu: u32) {
        if self.vcpus[cpu as usize].lock().unwrap().irq_pending() {
            let _executing = Executing::in_exception(Cpu::new(cpu));
            kernel::take_interrupts(kernel, Cpu::new(cpu), &self.registers(cpu), |vector, why| {
                panic!("interrupt {vector}: {why:?}")
            });
        }
    }
}

#[test]
fn readme_kernel_handles_monitors_signals() {
    let machine = GuestMachine::new();
    let kernel = machine.boot();
    let sender = Sender::Device(DeviceId::new(FUNCTION.into()));
    let table = Arc::new(MsixTable::new(4, sender, machine.guest.router.clone()).unwrap());
    let runs: Arc<[AtomicU32; 4]> = Arc::default();
    let counted = runs.clone();
    let count = move |context: &irq_domain::IrqContext<'_>| {
        counted[context.cpu().index()].fetch_add(1, Ordering::Relaxed);
    };
    let store = Arc::new(Table(table.clone()));
    let host = kernel.description().hosts.first().unwrap();
    let found = FunctionStore { store, shape: Shape::Independent };
    let driver = kernel::probe(&kernel, host, FUNCTION.into(), found, count).unwrap();
    let runs = || runs.each_ref().map(|runs| runs.load(Ordering::Relaxed));

    assert_eq!(table.signal(0), Signalled::Sent(Delivery::Pending));
    machine.run(&kernel, 0);
    assert_eq!(runs(), [1, 0, 0, 0], "on the boot CPU");

    driver.handle.set_affinity(Cpu::new(3)).unwrap();
    assert_eq!(table.signal(0), Signalled::Sent(Delivery::Pending));
    (0..4).for_each(|cpu| machine.run(&kernel, cpu));
    assert_eq!(runs(), [1, 0, 0, 1], "on the CPU that it was moved to");

    let kernel::Pci { handle, device } = driver;
    drop(handle);
    table.signal(0);
    (0..4).for_each(|cpu| machine.run(&kernel, cpu));
    assert_eq!(runs(), [1, 0, 0, 1], "without the handle no handler runs");
    assert!(table.control().enable());
    drop(device);
    assert!(!table.control().enable(), "without the device there is no vector");
    assert_eq!((table.signal(0), table.message(0)), (Signalled::Held, None));
}
