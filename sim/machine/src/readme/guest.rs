//! The README's kernel as the guest of the guide's monitor. Each of the kernel's CPUs runs on its
//! own thread, and each register access exits to the monitor.

use super::kernel;
use super::vmm::{CAPABILITY, Exit, GuestCpu, KickFlag, PENDING_BITS, TABLE};
use doorbell_hardware::bus::{AccessWidth, Bus, MmioDevice};
use doorbell_hardware::pci::enumerate::BusRegion;
use doorbell_hardware::platform::{Executing, Interleave, InterleavePoint, MachinePlatform};
use doorbell_hardware::ram::{Caches, Ram};
use gic_arch::Affinity;
use gic_arch::icc::SysRegEncoding;
use gic_bringup::Irqchip;
use gic_driver::SystemRegisters;
use gic_firmware::{
    BusRange, Controller, ControllerIndex, CpuNode, Description, Gic, MsiRouting, PciHost, Region,
    devicetree,
};
use irq_domain::IrqContext;
use irq_domain::pci::{
    ConfigSpace as _, Ecam, FunctionStore, MsixCapability, MsixRegions, MsixStore,
};
use msi_types::pci::msix;
use msi_types::{Cpu, DeviceId, RequesterId, Shape};
use std::cell::{Cell, OnceCell};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};
use vgic::{Block, Inputs, Vgic};

pub(super) const CPUS: u32 = 4;
/// Number of the function's vectors.
pub(super) const VECTORS: u16 = 32;
const FUNCTION: RequesterId = RequesterId::pci(0, 1, 0);
const ECAM: u64 = 0x3f00_0000;
const ECAM_SIZE: u64 = 0x10_0000;
const BUSES: BusRange = BusRange { first: 0, last: 0 };
const RAM: u64 = 0x4000_0000;
/// Time limit of a wait, which only ends what hangs.
pub(super) const HANG: Duration = Duration::from_mins(10);

/// A vCPU as seen by the monitor. The kernel's thread waits while the monitor handles an exit.
pub(super) struct KernelCpu {
    exits: Receiver<Exit>,
    resume: Sender<Resume>,
    /// Result of the last exit, with which the kernel's thread resumes; `None` before the first
    /// exit.
    answer: Option<u64>,
}

/// Result of an exit, and the level of the vCPU's IRQ input.
struct Resume {
    value: u64,
    irq: bool,
}

impl GuestCpu for KernelCpu {
    fn run(&mut self, inputs: Inputs, kick: &KickFlag) -> Exit {
        if kick.take() {
            return Exit::Kicked;
        }
        if let Some(value) = self.answer.replace(0) {
            self.resume.send(Resume { value, irq: inputs.irq }).expect("the kernel panicked");
        }
        self.exits.recv().expect("the kernel panicked")
    }

    fn complete(&mut self, value: u64) {
        self.answer = Some(value);
    }

    fn inject_undefined(&mut self) {
        panic!("the kernel accesses registers that exist");
    }
}

/// A CPU as seen by the kernel's thread.
struct Port {
    cpu: Cpu,
    exits: Sender<Exit>,
    resumed: Receiver<Resume>,
    irq: Cell<bool>,
}

thread_local! {
    static PORT: OnceCell<Port> = const { OnceCell::new() };
}

fn on_port<R>(use_port: impl FnOnce(&Port) -> R) -> R {
    PORT.with(|port| use_port(port.get().expect("the kernel runs on its CPUs")))
}

/// Exits to the monitor, and returns the result of the exit. Does not return if the monitor has
/// dropped the vCPU.
fn exit(exit: Exit) -> u64 {
    on_port(|port| {
        let _ = port.exits.send(exit);
        let Ok(Resume { value, irq }) = port.resumed.recv() else {
            loop {
                thread::park();
            }
        };
        port.irq.set(irq);
        value
    })
}

/// Memory-mapped registers of the guest, from address 0 on. Each access is an exit.
struct ExitBus;

impl MmioDevice for ExitBus {
    fn read(&self, address: u64, width: AccessWidth) -> u64 {
        exit(Exit::Read(address, width))
    }

    fn write(&self, address: u64, width: AccessWidth, value: u64) {
        exit(Exit::Write(address, width, value));
    }
}

/// System registers of the calling CPU. Each access is an exit.
struct ExitRegisters;

impl SystemRegisters for ExitRegisters {
    fn read_raw(&self, register: SysRegEncoding) -> u64 {
        exit(Exit::Mrs(register))
    }

    fn write_raw(&self, register: SysRegEncoding, value: u64) {
        exit(Exit::Msr(register, value));
    }
}

/// Program that runs on the kernel's last CPU.
type Program = dyn Fn(&GuestKernel, &Irqchip<MachinePlatform>) + Send + Sync;

/// The guest's kernel.
pub(super) struct GuestKernel {
    platform: Arc<MachinePlatform>,
    devicetree: Vec<u8>,
    irqchip: OnceLock<Irqchip<MachinePlatform>>,
    program: Box<Program>,
}

impl GuestKernel {
    /// Starts a thread for each of the kernel's CPUs, and returns the vCPUs for the monitor.
    pub(super) fn start(
        gic: &Vgic,
        ram: Arc<Ram>,
        program: impl Fn(&Self, &Irqchip<MachinePlatform>) + Send + Sync + 'static,
    ) -> Vec<KernelCpu> {
        let mut bus = Bus::default();
        bus.attach("the monitor's devices", region(0, RAM), Arc::new(ExitBus)).unwrap();
        let guest = Arc::new(Self {
            platform: Arc::new(MachinePlatform::new(Arc::new(bus), ram)),
            devicetree: devicetree(gic),
            irqchip: OnceLock::new(),
            program: Box::new(program),
        });
        guest.platform.interleave_by(guest.clone());
        (0..CPUS).map(|cpu| guest.clone().start_cpu(Cpu::new(cpu))).collect()
    }

    fn start_cpu(self: Arc<Self>, cpu: Cpu) -> KernelCpu {
        let (to_monitor, exits) = channel();
        let (resume, resumed) = channel();
        thread::spawn(move || {
            let port = Port { cpu, exits: to_monitor, resumed, irq: Cell::new(false) };
            assert!(PORT.with(|cell| cell.set(port)).is_ok(), "each CPU has its own thread");
            self.run(cpu);
        });
        KernelCpu { exits, resume, answer: None }
    }

    /// Runs one of the kernel's CPUs. The CPUs boot one after the other.
    fn run(&self, cpu: Cpu) {
        if let Some(previous) = cpu.get().checked_sub(1) {
            let irqchip = self.when_online(Cpu::new(previous));
            let _executing = Executing::in_exception(cpu);
            irqchip.cpu_on(cpu, &ExitRegisters, |_| ()).unwrap();
        } else {
            let irqchip = kernel::boot(self.platform.clone(), &self.devicetree, &ExitRegisters);
            assert!(self.irqchip.set(irqchip.unwrap()).is_ok(), "only this CPU boots the kernel");
        }
        if cpu == Cpu::new(CPUS - 1) {
            (self.program)(self, self.when_online(cpu));
        }
        loop {
            self.take_interrupts();
            exit(Exit::Wfi);
        }
    }

    fn when_online(&self, cpu: Cpu) -> &Irqchip<MachinePlatform> {
        loop {
            match self.irqchip.get() {
                Some(irqchip) if irqchip.interrupts().is_online(cpu) => return irqchip,
                _ => exit(Exit::Kicked),
            };
        }
    }

    fn take_interrupts(&self) {
        let Some(irqchip) = self.irqchip.get() else { return };
        let cpu = on_port(|port| port.cpu);
        while on_port(|port| port.irq.get()) {
            let _executing = Executing::in_exception(cpu);
            kernel::take_interrupts(irqchip, cpu, &ExitRegisters, |vector, why| {
                panic!("interrupt {vector}: {why:?}")
            });
        }
    }

    /// Allocates the function's vectors and requests the first one.
    pub(super) fn probe(
        &self,
        irqchip: &Irqchip<MachinePlatform>,
        handler: impl Fn(&IrqContext<'_>) + Send + Sync + 'static,
    ) -> kernel::Pci {
        let host = irqchip.description().hosts.first().unwrap();
        let found = message_store(&self.platform);
        kernel::probe(irqchip, host, FUNCTION.into(), found, handler).unwrap()
    }

    /// Handles interrupts until `condition` holds.
    pub(super) fn wait(&self, condition: impl Fn() -> bool) {
        let deadline = Instant::now() + HANG;
        while !condition() {
            assert!(Instant::now() < deadline, "the guest hangs");
            self.at(InterleavePoint::Unmasked);
        }
    }
}

impl Interleave for GuestKernel {
    /// Lets the monitor pause this CPU, and handles interrupts if they are unmasked.
    fn at(&self, point: InterleavePoint) {
        exit(Exit::Kicked);
        if point == InterleavePoint::Unmasked {
            self.take_interrupts();
        }
    }
}

/// Returns the message store of the monitor's function. The monitor implements only the MSI-X
/// capability of its configuration space.
fn message_store(platform: &Arc<MachinePlatform>) -> FunctionStore {
    let window = |base, size| Arc::new(BusRegion::new(&platform.cpu_bus(), region(base, size)));
    let (table, ecam) = (window(TABLE, 0x1000), Ecam::new(window(ECAM, ECAM_SIZE), BUSES));
    let config = Arc::new(ecam.function(FUNCTION).unwrap());
    let offset = u16::try_from(CAPABILITY & 0xfff).unwrap();
    let place = |at| msix::BarOffset::from(config.read32(offset + at));
    let (table_at, pending) = (place(msix::TABLE), place(msix::PBA));
    assert_eq!(pending.offset(), PENDING_BITS - TABLE);
    let capability = MsixCapability { offset, slots: VECTORS, table: table_at, pending };
    let regions = MsixRegions { table: table.clone(), pending: table };
    let store = MsixStore::new(capability, config, regions, platform.clone());
    FunctionStore { store: Arc::new(store.unwrap()), shape: Shape::Independent }
}

fn region(base: u64, size: u64) -> Region {
    Region::new(base, size).unwrap()
}

pub(super) fn ram() -> Arc<Ram> {
    Arc::new(Ram::new(&[region(RAM, 0x100_0000)], Caches::Snooped))
}

/// Returns the devicetree that the monitor passes to its guest.
fn devicetree(gic: &Vgic) -> Vec<u8> {
    let frames = |wanted: fn(Block) -> bool| {
        let regions = gic.regions().iter().filter(move |one| wanted(one.block));
        regions.map(|one| region(one.addresses.start, one.addresses.end - one.addresses.start))
    };
    let redistributors = frames(|block| matches!(block, Block::Redistributors(_)));
    let gic = Gic::v3("/intc", region(0x0800_0000, 0x1_0000), redistributors);
    let cpu = |number| CpuNode::new(format!("/cpus/cpu@{number}"), Affinity::new(0, 0, 0, number));
    let routing = MsiRouting::device(ControllerIndex::new(0), DeviceId::new(0));
    let description = Description {
        cpus: (0..4).map(cpu).collect(),
        gic: Some(gic),
        controllers: vec![Controller::its("/intc/its", region(0x0808_0000, 0x2_0000))],
        hosts: vec![PciHost::ecam("/pcie", region(ECAM, ECAM_SIZE), routing)],
        ..Description::default()
    };
    devicetree::write(&description).unwrap()
}
