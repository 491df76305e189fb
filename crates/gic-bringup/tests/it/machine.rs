//! A test machine with two CPUs, a GICv3 with an ITS, and a kernel whose heap can run out. The
//! model and its RAM don't count against that heap.

use crate::choices::Messages;
use doorbell_hardware::bus::{AccessWidth, Bus, MmioDevice};
use doorbell_hardware::platform::{CpuBus, Executing, Frame, MachinePlatform};
use doorbell_hardware::ram::{Caches, Ram};
use doorbell_test_support::Outside;
use gic_arch::icc::SysRegEncoding;
use gic_arch::{Affinity, IntId, gicd, gicr, gits};
use gic_bringup::{BringUpError, Irqchip, Options};
use gic_driver::{
    Coherence, GicPlatform, Mmio, MmioExt, PhysicalRegion, Platform, SystemRegisters, Table,
    TableLayout, Wait,
};
use gic_firmware::{
    Controller, ControllerIndex, CpuNode, Description, Fact, Gic, MapEntry, MsiRouting, PciHost,
    Region, Target,
};
use irq_domain::{Host, MsiDevice, MsiDeviceConfig};
use msi_types::{
    Cpu, Delivery, DeviceId, IrqState, Kick, Level, Line, LocalCpu, MsiMessage, RequesterId,
    SetLine, TaskContext,
};
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use vgic::its::ItsConfig;
use vgic::{Block, Vcpu, Vgic, VgicConfig};

pub(crate) const CPU0: Cpu = Cpu::new(0);
pub(crate) const CPU1: Cpu = Cpu::new(1);
const DISTRIBUTOR: u64 = 0x0800_0000;
pub(crate) const ITS: u64 = 0x0808_0000;
pub(crate) const FUNCTION: RequesterId = RequesterId::pci(1, 0, 0);

/// The kernel under test. Only the kernel's heap is limited; the resources that the kernel passes
/// to drivers belong to the machine.
pub(crate) struct Kernel {
    machine: MachinePlatform,
    tables: AtomicUsize,
    /// State of the ITS at each table allocation; `true` if the ITS was enabled.
    its_at_allocations: Mutex<Vec<bool>>,
    stuck: Arc<Mutex<Option<Stuck>>>,
}

/// A 32-bit register that makes its hardware look busy forever.
#[derive(Clone, Copy)]
struct Stuck {
    address: u64,
    value: u32,
}

/// Model registers mapped into the kernel. The model's allocations don't count against the kernel's
/// heap.
pub(crate) struct ModelFrame {
    frame: Frame,
    base: u64,
    stuck: Arc<Mutex<Option<Stuck>>>,
}

impl Mmio for ModelFrame {
    fn read32(&self, offset: u32) -> u32 {
        let _outside = Outside::new();
        match *self.stuck.lock().unwrap() {
            Some(stuck) if stuck.address == self.base + u64::from(offset) => stuck.value,
            _ => self.frame.read32(offset),
        }
    }

    fn write32(&self, offset: u32, value: u32) {
        let _outside = Outside::new();
        self.frame.write32(offset, value);
    }

    fn read64(&self, offset: u32) -> u64 {
        let _outside = Outside::new();
        self.frame.read64(offset)
    }

    fn write64(&self, offset: u32, value: u64) {
        let _outside = Outside::new();
        self.frame.write64(offset, value);
    }

    fn write8(&self, offset: u32, value: u8) {
        let _outside = Outside::new();
        self.frame.write8(offset, value);
    }
}

impl LocalCpu for Kernel {
    fn irq_save(&self) -> IrqState {
        self.machine.irq_save()
    }

    fn irq_restore(&self, state: IrqState) {
        self.machine.irq_restore(state);
    }

    fn relax(&self) {
        unreachable!("a single thread has nothing to wait for");
    }

    fn yield_now(&self) {
        self.relax();
    }
}

impl TaskContext for Kernel {
    fn may_wait(&self) -> bool {
        self.machine.may_wait()
    }
}

impl Host for Kernel {
    fn current_cpu(&self) -> Option<Cpu> {
        self.machine.current_cpu()
    }
}

impl Platform for Kernel {
    type Mmio = ModelFrame;

    fn map(&self, region: PhysicalRegion) -> Option<ModelFrame> {
        let _outside = Outside::new();
        let frame = self.machine.map(region)?;
        Some(ModelFrame { frame, base: region.base, stuck: self.stuck.clone() })
    }

    fn wait(&self, turn: u32) -> Wait {
        if turn > 100 && self.stuck.lock().unwrap().is_some() {
            return Wait::GiveUp;
        }
        self.machine.wait(turn)
    }
}

impl GicPlatform for Kernel {
    /// Checks that the caller may sleep, like a real kernel's page allocator.
    fn allocate_table(&self, layout: TableLayout) -> Option<Table> {
        assert!(self.machine.may_wait(), "a table is allocated with interrupts masked");
        let _outside = Outside::new();
        self.tables.fetch_add(1, Ordering::Relaxed);
        let its = self.machine.map(PhysicalRegion { base: ITS, bytes: gits::SIZE })?;
        self.its_at_allocations.lock().unwrap().push(its.read(gits::CTLR).enabled());
        self.machine.allocate_table(layout)
    }

    fn release_table(&self, table: Table) {
        let _outside = Outside::new();
        self.tables.fetch_sub(1, Ordering::Relaxed);
        self.machine.release_table(table);
    }

    /// Returns a table at `region`; memory from a previous kernel is reserved.
    fn adopt_table(&self, region: PhysicalRegion) -> Option<Table> {
        assert!(self.machine.may_wait(), "a table is adopted with interrupts masked");
        Some(Table::new(region.base, region.bytes, 0))
    }

    fn store8(&self, table: &Table, offset: u64, value: u8) {
        let _outside = Outside::new();
        self.machine.store8(table, offset, value);
    }

    fn store64(&self, table: &Table, offset: u64, value: u64) {
        let _outside = Outside::new();
        self.machine.store64(table, offset, value);
    }

    fn load8(&self, table: &Table, offset: u64) -> u8 {
        let _outside = Outside::new();
        self.machine.load8(table, offset)
    }

    fn publish(&self, table: &Table, range: Range<u64>, coherence: Coherence) {
        let _outside = Outside::new();
        self.machine.publish(table, range, coherence);
    }

    fn cpu(&self) -> Cpu {
        self.machine.cpu()
    }

    fn affinity(&self) -> Option<Affinity> {
        Some(affinity(self.cpu()))
    }
}

/// A model register region on the bus.
struct ModelRegion {
    gic: Arc<Vgic>,
    base: u64,
}

impl MmioDevice for ModelRegion {
    fn read(&self, offset: u64, width: AccessWidth) -> u64 {
        self.gic.read(self.base + offset, width).unwrap()
    }

    fn write(&self, offset: u64, width: AccessWidth, value: u64) {
        self.gic.write_until_done(self.base + offset, width, value).unwrap();
    }
}

/// Kick handler that does nothing, because no CPU runs or sleeps between the steps of a test.
struct NoKick;

impl Kick for NoKick {
    fn kick(&self, _: Cpu) {}
}

/// One CPU's system registers.
pub(crate) struct CpuRegisters<'a>(&'a Mutex<Vcpu>);

impl SystemRegisters for CpuRegisters<'_> {
    fn read_raw(&self, register: SysRegEncoding) -> u64 {
        let _outside = Outside::new();
        self.0.lock().unwrap().read_sysreg(register).unwrap()
    }

    fn write_raw(&self, register: SysRegEncoding, value: u64) {
        let _outside = Outside::new();
        self.0.lock().unwrap().write_sysreg(register, value).unwrap();
    }
}

pub(crate) type Chip = Irqchip<Kernel>;

/// The machine, which is always created powered on.
pub(crate) struct Machine {
    gic: Arc<Vgic>,
    vcpus: Vec<Mutex<Vcpu>>,
    pub(crate) kernel: Arc<Kernel>,
    description: Arc<Description>,
}

/// Returns a CPU's affinity. All CPUs in the model share one cluster and are numbered in order.
fn affinity(cpu: Cpu) -> Affinity {
    Affinity::new(0, 0, 0, u8::try_from(cpu.get()).unwrap())
}

fn region(base: u64, size: u64) -> Region {
    Region::new(base, size).unwrap()
}

/// Returns firmware's description of the machine. The machine has a PCI host bridge whose functions
/// all signal the ITS.
fn description(redistributors: Vec<Region>) -> Description {
    let cpu = |cpu: Cpu| CpuNode::new(format!("/cpus/{}", cpu.get()), affinity(cpu));
    let everyone = MapEntry {
        rid_base: RequesterId::new(0),
        length: 0x1_0000,
        target: Target::Controller(ControllerIndex::new(0)),
        device_id_base: DeviceId::new(0),
    };
    let routing = MsiRouting { map: Some(vec![Fact::stated(everyone)]), ..MsiRouting::default() };
    Description {
        cpus: vec![cpu(CPU0), cpu(CPU1)],
        gic: Some(Gic::v3("/gic", region(DISTRIBUTOR, 0x1_0000), redistributors)),
        controllers: vec![Controller::its("/gic/its", region(ITS, 0x2_0000))],
        hosts: vec![PciHost::ecam("/pcie", region(0x3f00_0000, 0x10_0000), routing)],
        ..Description::default()
    }
}

/// Attaches the PCI function behind the host bridge, and returns the device and its message store.
pub(crate) fn function(chip: &Chip) -> (MsiDevice, Arc<Messages>) {
    let store = Arc::new(Messages::default());
    let host = chip.description().hosts.first().unwrap();
    let parent = chip.pci_parent(host, FUNCTION).unwrap();
    let config = MsiDeviceConfig::new("nic", FUNCTION, parent, store.clone());
    (MsiDevice::attach(chip.interrupts(), config).unwrap(), store)
}

impl Machine {
    pub(crate) fn new() -> Self {
        Self::with(|_| ())
    }

    /// Changes firmware's description.
    pub(crate) fn described(mut self, change: impl FnOnce(&mut Description)) -> Self {
        change(Arc::make_mut(&mut self.description));
        self
    }

    /// Creates a machine whose hardware can't clear `EnableLPIs` without a reset.
    pub(crate) fn with_lpis_that_stay_enabled() -> Self {
        Self::with(|config| config.can_clear_enable_lpis = false)
    }

    /// Creates a machine with the default configuration after `change` has modified it.
    pub(crate) fn with(change: impl FnOnce(&mut VgicConfig)) -> Self {
        Self::with_devices(change, |_, _| ())
    }

    /// Like [`with`](Self::with), but `plug` also attaches devices to the bus.
    pub(crate) fn with_devices(
        change: impl FnOnce(&mut VgicConfig),
        plug: impl FnOnce(&mut Bus, &Arc<Vgic>),
    ) -> Self {
        let ram = Arc::new(Ram::new(&[region(0x4000_0000, 0x100_0000)], Caches::Snooped));
        let mut config = VgicConfig::new(2);
        config.lpi_id_bits = Some(16);
        config.its = vec![ItsConfig::new(ITS)];
        change(&mut config);
        let (gic, vcpus) = Vgic::new(config, ram.clone(), Arc::new(NoKick)).unwrap();
        let (mut bus, mut redistributors) = (Bus::default(), Vec::new());
        for frames in gic.regions() {
            let (base, end) = (frames.addresses.start, frames.addresses.end);
            let device = Arc::new(ModelRegion { gic: gic.clone(), base });
            bus.attach(&format!("{:?}", frames.block), region(base, end - base), device).unwrap();
            if matches!(frames.block, Block::Redistributors(_)) {
                redistributors.push(region(base, end - base));
            }
        }
        plug(&mut bus, &gic);
        let machine = MachinePlatform::new(Arc::new(bus), ram);
        Self {
            gic,
            vcpus: vcpus.into_iter().map(Mutex::new).collect(),
            kernel: Arc::new(Kernel {
                machine,
                tables: AtomicUsize::new(0),
                its_at_allocations: Mutex::default(),
                stuck: Arc::default(),
            }),
            description: Arc::new(description(redistributors)),
        }
    }

    /// Moves the ITS to a secondary GIC in firmware's description.
    pub(crate) fn with_its_of_secondary_gic(mut self) -> Self {
        let description = Arc::make_mut(&mut self.description);
        description.controllers[0].secondary_gic = Some("/gic2".into());
        self
    }

    /// Makes firmware list the boot CPU last.
    pub(crate) fn with_cpus_in_reverse(mut self) -> Self {
        Arc::make_mut(&mut self.description).cpus.reverse();
        self
    }

    /// Returns the bus as the boot CPU accesses it.
    pub(crate) fn bus(&self) -> CpuBus {
        self.kernel.machine.cpu_bus()
    }

    /// Returns firmware's description.
    pub(crate) fn description(&self) -> Arc<Description> {
        self.description.clone()
    }

    /// Starts the controllers' drivers, without turning on a CPU. Allocates.
    pub(crate) fn bring_up(&self) -> Result<Chip, BringUpError> {
        self.bring_up_with(&Options::default())
    }

    /// Like [`bring_up`](Self::bring_up), with options.
    pub(crate) fn bring_up_with(&self, options: &Options<'_>) -> Result<Chip, BringUpError> {
        let kernel = self.kernel.clone();
        Irqchip::with(kernel.clone(), kernel, self.description.clone(), options)
    }

    /// Starts the controllers' drivers and turns on both CPUs.
    pub(crate) fn boot(&self) -> Chip {
        self.boot_with(&Options::default())
    }

    /// Like [`boot`](Self::boot), with options.
    pub(crate) fn boot_with(&self, options: &Options<'_>) -> Chip {
        let chip = self.bring_up_with(options).unwrap();
        for cpu in chip.cpus() {
            self.execute(cpu, |registers| chip.cpu_on(cpu, registers, |_| unreachable!())).unwrap();
        }
        chip
    }

    /// Executes `code` on `cpu`, with its interrupts masked.
    pub(crate) fn execute<R>(&self, cpu: Cpu, code: impl FnOnce(&CpuRegisters<'_>) -> R) -> R {
        let _executing = Executing::in_exception(cpu);
        code(&CpuRegisters(&self.vcpus[cpu.index()]))
    }

    /// Executes `code` as a task on `cpu`, with interrupts unmasked.
    pub(crate) fn execute_task<R>(&self, cpu: Cpu, code: impl FnOnce() -> R) -> R {
        self.execute(cpu, |_| {
            self.kernel.irq_restore(IrqState::new(0));
            code()
        })
    }

    /// Resets all registers to their power-on values, but keeps RAM contents and line levels.
    pub(crate) fn lose_power(&self) {
        let mut halves: Vec<_> = self.vcpus.iter().map(|vcpu| vcpu.lock().unwrap()).collect();
        let _paused: Vec<_> = halves.iter_mut().map(|half| half.pause()).collect();
        self.gic.lose_power().unwrap();
    }

    /// Prevents the ITS from becoming quiescent.
    pub(crate) fn block_its(&self) {
        self.block(ITS + u64::from(gits::CTLR.offset()), 0);
    }

    /// Prevents the boot CPU's redistributor from falling asleep.
    pub(crate) fn block_sleep(&self) {
        let base = self.description.gic.as_ref().unwrap().redistributors[0].value.base();
        let value = gicr::Waker::new().with_processor_sleep(true).into();
        self.block(base + u64::from(gicr::WAKER.offset()), value);
    }

    fn block(&self, address: u64, value: u32) {
        *self.kernel.stuck.lock().unwrap() = Some(Stuck { address, value });
    }

    /// Undoes [`block_its`](Self::block_its) and [`block_sleep`](Self::block_sleep).
    pub(crate) fn unblock(&self) {
        *self.kernel.stuck.lock().unwrap() = None;
    }

    /// Makes both CPUs handle their pending interrupts.
    pub(crate) fn settle(&self, chip: &Chip) {
        for cpu in [CPU0, CPU1] {
            if self.wants(cpu) {
                self.execute(cpu, |registers| {
                    chip.handle_irq(cpu, registers, |hwirq, why| panic!("{hwirq}: {why:?}"));
                });
            }
        }
    }

    /// Returns `true` if an interrupt is signaled to the CPU.
    pub(crate) fn wants(&self, cpu: Cpu) -> bool {
        self.vcpus[cpu.index()].lock().unwrap().irq_pending()
    }

    pub(crate) fn set_line(&self, line: Line, level: Level) {
        self.gic.set_line(line, level);
    }

    /// Sends the message in slot `slot` of the function's message store.
    pub(crate) fn send(&self, messages: &Messages, slot: usize) {
        self.send_from(FUNCTION, messages, slot);
    }

    /// Sends the message in slot `slot` of the message store, from the function with this requester
    /// ID.
    pub(crate) fn send_from(&self, requester: RequesterId, messages: &Messages, slot: usize) {
        let message = messages.0.lock().unwrap()[slot];
        self.signal(DeviceId::new(requester.get()), message);
    }

    /// Sends a message from a device.
    pub(crate) fn signal(&self, device: DeviceId, message: MsiMessage) {
        assert_eq!(self.gic.its(0).unwrap().signal_msi(device, message), Delivery::Pending);
    }

    /// Returns how many tables drivers have allocated.
    pub(crate) fn tables(&self) -> usize {
        self.kernel.tables.load(Ordering::Relaxed)
    }

    /// Returns, for each allocation since the last call, `true` if the ITS was enabled.
    pub(crate) fn take_its_at_allocations(&self) -> Vec<bool> {
        std::mem::take(&mut *self.kernel.its_at_allocations.lock().unwrap())
    }

    /// Asserts that no interrupt can be delivered and that no controller uses memory.
    pub(crate) fn assert_untouched(&self) {
        assert_eq!(self.tables(), 0);
        let frame = |base, bytes| self.kernel.map(PhysicalRegion { base, bytes }).unwrap();
        let its = self.its();
        assert!(!its.read(gits::CTLR).enabled(), "the ITS is enabled");
        assert!(!its.read(gits::CBASER).valid(), "the ITS has a queue");
        assert!((0..8).all(|table| !its.read(gits::BASER.get(table).unwrap()).valid()));
        let distributor = frame(DISTRIBUTOR, 0x1_0000);
        let mut spis = (32..1020).step_by(32).map(|spi| gicd::ISENABLER.locate(IntId::new(spi)));
        assert!(spis.all(|enables| distributor.read(enables.unwrap().register()) == 0));
        for cpu in [CPU0, CPU1] {
            assert!(!self.redistributor(cpu).read(gicr::CTLR).enable_lpis());
        }
    }

    /// Returns the ITS registers.
    pub(crate) fn its(&self) -> ModelFrame {
        self.kernel.map(PhysicalRegion { base: ITS, bytes: gits::SIZE }).unwrap()
    }

    /// Returns a CPU's redistributor registers.
    pub(crate) fn redistributor(&self, cpu: Cpu) -> ModelFrame {
        let region = self.description.gic.as_ref().unwrap().redistributors[0].value;
        let base = region.base() + u64::from(cpu.get()) * gicr::STRIDE_V3;
        self.kernel.map(PhysicalRegion { base, bytes: gicr::STRIDE_V3 }).unwrap()
    }
}
