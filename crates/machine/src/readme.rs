//! The examples of the project's README, word for word, at work: the kernel of the first one runs as the guest of the
//! monitor of the second one.

use crate::cpu::{NoKick, Registers};
use doorbell_hardware::bus::{AccessWidth, Bus, MmioDevice};
use doorbell_hardware::platform::{Executing, MachinePlatform};
use doorbell_hardware::ram::{Caches, Ram};
use gic_arch::Affinity;
use gic_driver::{GicConfig, ItsConfig, PhysicalRegion, RedistributorRegion};
use gic_firmware::Region;
use irq_routing::msix::{MsixTable, Signalled};
use msi_types::pci::msix;
use msi_types::{
    Cpu, Delivery, DeviceId, Fit, Masking, MessageStore, MsiMessage, RequesterId, Rewrite, Slots, Storage,
    StoreError,
};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use vgic::{Block, Vcpu, Vgic};

#[expect(unreachable_pub, reason = "a reader makes a module of it where it is reachable")]
mod firmware;
#[expect(unreachable_pub, reason = "a reader makes a module of it where it is reachable")]
mod kernel;
#[expect(unreachable_pub, reason = "a reader makes a module of it where it is reachable")]
mod monitor;

const README: &str = include_str!("../../../README.md");
const FUNCTION: RequesterId = RequesterId::pci(1, 0, 0);

#[test]
fn the_readme_shows_the_examples_that_run_here() {
    for example in [
        include_str!("readme/kernel.rs"),
        include_str!("readme/monitor.rs"),
        include_str!("readme/firmware.rs"),
    ] {
        assert!(README.contains(&format!("```rust\n{example}```\n")), "not in README.md:\n{example}");
    }
    assert_eq!(README.matches("```rust\n").count(), 3, "each of README.md's examples runs here");
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

/// The guest's way to its function's MSI-X table.
struct Table(Arc<MsixTable>);

impl Table {
    fn entry(&self, slot: u16, offset: u64, value: u32) {
        self.0.write(u64::from(slot) * msix::ENTRY_SIZE + offset, &value.to_le_bytes()).unwrap();
    }
}

impl Slots for &Table {
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
        Fit { address_bits: 64, data_bits: 32, rewrite: Rewrite::Masked }
    }

    fn masking(&self) -> Masking {
        Masking::PerVector
    }

    fn storage(&self) -> Storage {
        Storage::Bus
    }

    fn update(&self, change: &mut dyn FnMut(&mut dyn Slots)) -> Result<(), StoreError> {
        change(&mut &*self);
        Ok(())
    }

    fn set_enabled(&self, enabled: bool) -> Result<(), StoreError> {
        self.0.write_control(msix::Control::new().with_enable(enabled)).unwrap();
        Ok(())
    }
}

fn region(base: u64, size: u64) -> Region {
    Region::new(base, size).unwrap()
}

/// A guest that is about to boot.
struct GuestMachine {
    guest: monitor::Guest,
    vcpus: Vec<Mutex<Vcpu>>,
    platform: Arc<MachinePlatform>,
}

impl GuestMachine {
    fn new() -> Self {
        let ram = Arc::new(Ram::new(&[region(0x4000_0000, 0x100_0000)], Caches::Snooped));
        let mut guest = monitor::Guest::new(ram.clone(), Arc::new(NoKick)).unwrap();
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

    fn registers(&self, cpu: u32) -> Registers<'_> {
        Registers(&self.vcpus[cpu as usize])
    }

    /// The guest's kernel, on all CPUs.
    fn boot(&self) -> kernel::Kernel<MachinePlatform> {
        let regions = self.guest.gic.regions();
        let redistributors = regions.iter().filter(|one| matches!(one.block, Block::Redistributors(_)));
        let redistributors = redistributors.map(|one| {
            let (base, end) = (one.addresses.start, one.addresses.end);
            RedistributorRegion { region: PhysicalRegion { base, bytes: end - base }, stride: None }
        });
        let cpus = (0..4).map(|cpu| Affinity::new(0, 0, 0, cpu)).collect();
        let config = GicConfig::new(0x0800_0000, redistributors.collect(), cpus);
        let its = ItsConfig::new(0x0808_0000, 4);
        let (platform, host) = (self.platform.clone(), self.platform.clone());
        let booted = kernel::Kernel::bring_up(platform, host, &self.registers(0), config, &its).unwrap();
        for cpu in 1..4 {
            let _executing = Executing::in_exception(Cpu::new(cpu));
            booted.cpu_on(Cpu::new(cpu), &self.registers(cpu)).unwrap();
        }
        booted
    }

    /// The CPU takes the exception, if there is one.
    fn run(&self, kernel: &kernel::Kernel<MachinePlatform>, cpu: u32) {
        if self.vcpus[cpu as usize].lock().unwrap().irq_pending() {
            let _executing = Executing::in_exception(Cpu::new(cpu));
            kernel.take_interrupts(Cpu::new(cpu), &self.registers(cpu));
        }
    }
}

#[test]
fn the_kernel_handles_what_the_monitors_function_signals() {
    let machine = GuestMachine::new();
    let kernel = machine.boot();
    let table = Arc::new(machine.guest.function(DeviceId::new(FUNCTION.into()), 4).unwrap());
    let runs: Arc<[AtomicU32; 4]> = Arc::default();
    let counted = runs.clone();
    let count = move |context: &irq_domain::IrqContext<'_>| {
        counted[context.cpu().index()].fetch_add(1, Ordering::Relaxed);
    };
    let nvme = kernel.probe(FUNCTION, Arc::new(Table(table.clone())), count).unwrap();
    let runs = || runs.each_ref().map(|runs| runs.load(Ordering::Relaxed));

    assert_eq!(table.signal(0), Signalled::Sent(Delivery::Pending));
    machine.run(&kernel, 0);
    assert_eq!(runs(), [1, 0, 0, 0], "on the boot CPU");

    nvme.admin.set_affinity(Cpu::new(3)).unwrap();
    assert_eq!(table.signal(0), Signalled::Sent(Delivery::Pending));
    (0..4).for_each(|cpu| machine.run(&kernel, cpu));
    assert_eq!(runs(), [1, 0, 0, 1], "where it was moved to");

    let kernel::Nvme { admin, device } = nvme;
    drop(admin);
    table.signal(0);
    (0..4).for_each(|cpu| machine.run(&kernel, cpu));
    assert_eq!(runs(), [1, 0, 0, 1], "without the handle no handler runs");
    assert!(table.control().enable());
    drop(device);
    assert!(!table.control().enable(), "without the device there is no vector");
    assert_eq!((table.signal(0), table.gsi(0)), (Signalled::Held, None));
}

#[test]
fn the_report_names_what_each_host_bridge_rings() {
    let dtb = crate::embedded::machine("harbour").unwrap().dtb;
    let lines = firmware::report(dtb).unwrap();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert_eq!(lines[0], "/pcie@20000000: 01:00.0 rings with DeviceID 0x10100 by msi-map");
}
