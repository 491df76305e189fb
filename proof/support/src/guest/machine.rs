//! A scripted guest of the virtual GIC: its memory, tables and command queue, and the accesses with
//! which it sets up and uses its interrupt controller.
#![expect(clippy::unwrap_used, clippy::missing_panics_doc, reason = "a test fails by panicking")]

use super::{Field, Interface, Kicks, Ram, ram, vtr};
use gic_arch::gicd::Irouter;
use gic_arch::gicr::{Ctlr, Pendbaser, Propbaser};
use gic_arch::gits::{self, Baser, Cbaser, Cwriter, PageSize};
use gic_arch::icc::SysRegEncoding;
use gic_arch::its::{Command, RawCommand};
use gic_arch::{IntId, IntIdField, IntIdLocation, Reg, RegisterValue, gicd, gicr, icc};
use msi_types::{Delivery, DeviceId, Kick, Level, Line, MsiMessage, SetLine};
use std::sync::Arc;
use vgic::saved_state::{RestoreError, SavedState};
use vgic::{AccessWidth, GuestMemory, ListRegisterVcpu, Paused, Vcpu, Vgic, VgicConfig, VmMemory};

/// Address at which memory starts.
pub const RAM: u64 = 0x4000_0000;
/// Base of the ITS that the guest uses by default.
pub const ITS: u64 = 0x0808_0000;
/// Command queue of the ITS. The device table and the collection table follow it.
pub const QUEUE: u64 = RAM;
/// Device table of the ITS.
pub const DEVICES: u64 = QUEUE + DEVICES_OFFSET;
/// Collection table of the ITS.
pub const COLLECTIONS: u64 = QUEUE + COLLECTIONS_OFFSET;
const QUEUE_BYTES: u32 = 0x1_0000;
const DEVICES_OFFSET: u64 = 0x1_0000;
const COLLECTIONS_OFFSET: u64 = 0x2_0000;

/// Returns 4 MiB of guest memory at [`RAM`].
pub fn memory() -> Arc<VmMemory<Ram>> {
    Arc::new(VmMemory(ram(RAM, 4 << 20)))
}

/// A machine, its vCPUs and its memory, programmed as by a kernel's driver.
#[expect(missing_debug_implementations, reason = "a test prints the parts")]
pub struct Machine<M = VmMemory<Ram>, C = Vcpu> {
    /// The interrupt controller.
    pub gic: Arc<Vgic>,
    /// The vCPUs.
    pub vcpus: Vec<C>,
    /// The guest's memory.
    pub ram: Arc<M>,
    /// The kicks of the vCPUs.
    pub kicks: Arc<Kicks>,
    /// Base of the ITS that the guest uses.
    pub its: u64,
    /// Address of the command queue of 64 KiB, which the device table and the collection table
    /// follow.
    pub queue: u64,
}

impl Machine {
    /// Creates a machine with 4 MiB of memory.
    pub fn new(config: VgicConfig) -> Self {
        Self::over(config, memory())
    }

    /// Creates a machine and calls [`start`](Self::start).
    pub fn running(config: VgicConfig) -> Self {
        let mut machine = Self::new(config);
        machine.start();
        machine
    }

    /// Creates a machine with the given kick handler.
    pub fn kicking(config: VgicConfig, kick: Arc<dyn Kick>) -> Self {
        let ram = memory();
        let (gic, vcpus) = Vgic::new(config, ram.clone(), kick).unwrap();
        Self { vcpus, ..Self::view(gic, ram, ITS, QUEUE) }
    }
}

impl<M: GuestMemory + 'static> Machine<M> {
    /// Takes the first vCPU out of the machine and gives it four list registers.
    pub fn list_register_vcpu(&mut self) -> ListRegisterVcpu {
        self.vcpus.remove(0).with_list_registers(vtr(4, 5)).unwrap()
    }

    /// Returns the view that a guest on other threads has of a machine, without the vCPUs. `its`
    /// and `queue` are the base and the queue of one of the ITSes.
    pub fn view(gic: Arc<Vgic>, ram: Arc<M>, its: u64, queue: u64) -> Self {
        Self { gic, vcpus: Vec::new(), ram, kicks: Arc::new(Kicks::new(0)), its, queue }
    }

    /// Creates a machine with existing guest memory.
    pub fn over(config: VgicConfig, ram: Arc<M>) -> Self {
        Self::with_interfaces(config, ram, |vcpu, _| vcpu)
    }

    /// Creates a machine of the same configuration in its reset state, with the same memory.
    pub fn successor(&self) -> Self {
        Self { queue: self.queue, ..Self::over(self.gic.config().clone(), self.ram.clone()) }
    }
}

impl<M: GuestMemory + 'static, C: Interface> Machine<M, C> {
    /// Creates a machine with existing guest memory. `interface` adds the CPU interface to a vCPU,
    /// and receives the counters of kicks.
    pub fn with_interfaces(
        config: VgicConfig,
        ram: Arc<M>,
        interface: fn(Vcpu, &Kicks) -> C,
    ) -> Self {
        let kicks = Arc::new(Kicks::new(config.cpus.len()));
        let (gic, vcpus) = Vgic::new(config, ram.clone(), kicks.clone()).unwrap();
        let vcpus = vcpus.into_iter().map(|vcpu| interface(vcpu, &kicks)).collect();
        Self { gic, vcpus, ram, kicks, its: ITS, queue: QUEUE }
    }

    /// Pauses all vCPUs.
    pub fn pause(&mut self) -> Vec<Paused<'_>> {
        self.vcpus.iter_mut().map(C::pause).collect()
    }

    /// Saves the machine.
    pub fn save(&mut self) -> SavedState {
        let gic = self.gic.clone();
        let _paused = self.pause();
        gic.save().unwrap()
    }

    /// Restores a saved state.
    pub fn restore(&mut self, saved: &SavedState) {
        self.try_restore(saved).unwrap();
    }

    /// Restores a saved state, if the machine accepts it.
    pub fn try_restore(&mut self, saved: &SavedState) -> Result<(), RestoreError> {
        let gic = self.gic.clone();
        let _paused = self.pause();
        gic.restore(saved)
    }

    /// Wakes all redistributors, sets the lowest priority mask on all CPUs, and enables both
    /// groups. Puts all interrupts in Group 1.
    pub fn start(&mut self) {
        for cpu in 0..self.vcpus.len() {
            self.msr(cpu, icc::PMR.encoding(), 0xff);
            self.msr(cpu, icc::IGRPEN1.encoding(), 1);
        }
        self.start_wired();
    }

    /// Wakes all redistributors, enables both groups, and puts all interrupts in Group 1.
    pub fn start_wired(&self) {
        for cpu in 0..self.gic.config().cpus.len() {
            self.write_gicr(cpu, gicr::WAKER, gicr::Waker::new());
            for register in gicr::IGROUPR.registers().iter() {
                self.write_gicr(cpu, register, 0xffff_ffff);
            }
        }
        for register in gicd::IGROUPR.registers().iter().chain(gicd::IGROUPR_E.registers().iter()) {
            self.write_gicd(register, 0xffff_ffff);
        }
        self.write_gicd(gicd::CTLR, gicd::Ctlr::from(3));
    }

    /// Enables LPIs at every vCPU. The addresses of their pending tables are 64 KiB apart.
    pub fn enable_lpis(&self, id_bits: u8, configuration: u64, pending: u64) {
        for (cpu, pending) in (0..self.vcpus.len()).zip((pending..).step_by(0x1_0000)) {
            self.provide_lpi_tables(cpu, id_bits, configuration, pending);
            self.set_enable_lpis(cpu, true);
        }
    }

    /// Programs the LPI tables of a redistributor.
    pub fn provide_lpi_tables(&self, cpu: usize, id_bits: u8, configuration: u64, pending: u64) {
        let tables = Propbaser::new().with_id_bits_minus_one(id_bits - 1);
        self.write_gicr(cpu, gicr::PROPBASER, tables.with_address(configuration));
        self.write_gicr(cpu, gicr::PENDBASER, Pendbaser::new().with_address(pending));
    }

    /// Writes `GICR_CTLR.EnableLPIs`, and waits until the write has taken effect.
    pub fn set_enable_lpis(&self, cpu: usize, on: bool) {
        self.write_gicr(cpu, gicr::CTLR, Ctlr::new().with_enable_lpis(on));
        let read = || u32::try_from(self.read_gicr(cpu, gicr::CTLR)).unwrap();
        while Ctlr::from(read()).rwp() {}
    }

    /// Provides the tables and the command queue of the ITS, and enables the ITS.
    pub fn start_its(&self) {
        let table = Baser::new().with_page_size(PageSize::Size64K).with_valid(true);
        let [devices, collections] = [DEVICES_OFFSET, COLLECTIONS_OFFSET]
            .map(|offset| table.with_address(self.queue + offset));
        self.start_its_with(devices, collections);
    }

    /// Provides these tables and the command queue of the ITS, and enables the ITS.
    pub fn start_its_with(&self, devices: Baser, collections: Baser) {
        self.write_gits(gits::BASER.get(0).unwrap(), devices);
        self.write_gits(gits::BASER.get(1).unwrap(), collections);
        self.start_queue();
    }

    /// Provides the command queue of the ITS, and enables the ITS.
    pub fn start_queue(&self) {
        let queue = Cbaser::new().with_pages_minus_one(15).with_address(self.queue);
        self.write_gits(gits::CBASER, queue.with_valid(true));
        self.write_gits(gits::CTLR, gits::Ctlr::new().with_enabled(true));
    }

    /// Writes commands to the queue, and updates `GITS_CWRITER` once.
    pub fn queue(&self, commands: impl IntoIterator<Item = Command>) {
        self.write_gits(gits::CWRITER, self.prepare(commands));
    }

    /// Writes commands to the queue, and returns the value for `GITS_CWRITER`.
    pub fn prepare(&self, commands: impl IntoIterator<Item = Command>) -> Cwriter {
        self.prepare_raw(commands.into_iter().map(Command::encode))
    }

    /// Writes commands of any contents to the queue, and returns the value for `GITS_CWRITER`.
    pub fn prepare_raw(&self, commands: impl IntoIterator<Item = RawCommand>) -> Cwriter {
        let mut written = Cwriter::from_bits(self.read_gits(gits::CWRITER)).offset();
        for command in commands {
            let image = command.map(u64::to_le_bytes);
            self.ram.write(self.queue + u64::from(written), image.as_flattened()).unwrap();
            written = (written + 32) % QUEUE_BYTES;
        }
        Cwriter::at_offset(written)
    }

    /// Returns `true` if every queued command was executed.
    pub fn is_queue_done(&self) -> bool {
        self.read_gits(gits::CREADR) == self.read_gits(gits::CWRITER)
    }

    /// Executes ITS commands, and checks that the queue becomes empty without faults.
    pub fn run(&self, commands: impl IntoIterator<Item = Command>) {
        let mut commands = commands.into_iter().peekable();
        while commands.peek().is_some() {
            self.queue(commands.by_ref().take(1024));
            self.finish_queue();
        }
        assert_eq!(self.gic.command_faults(0).unwrap().count, 0);
    }

    /// Polls until the queue is empty.
    pub fn finish_queue(&self) {
        assert!((0..1 << 20).any(|_| self.is_queue_done()), "the queue does not become empty");
    }

    /// Sends a device's message to the ITS.
    pub fn send(&self, device: u32, event: u32) -> Delivery {
        send(&self.gic, device, event)
    }

    /// Returns the address of a redistributor.
    pub fn frame(&self, cpu: usize) -> u64 {
        let regions = &self.gic.config().redistributors;
        let mut frames = regions.iter().flat_map(|region| {
            (0..u64::from(region.count)).map(|index| region.base + index * region.stride)
        });
        frames.nth(cpu).unwrap()
    }

    /// Writes a register, and waits until the model has completed the write.
    pub fn write(&self, address: u64, width: AccessWidth, value: u64) {
        self.gic.write_until_done(address, width, value).unwrap();
    }

    /// Reads a register.
    pub fn read(&self, address: u64, width: AccessWidth) -> u64 {
        self.gic.read(address, width).unwrap()
    }

    /// Writes a register of the distributor.
    pub fn write_gicd<V: RegisterValue, A>(&self, register: Reg<V, A>, value: V) {
        self.write_at(self.gic.config().distributor, register, value);
    }

    /// Writes a register of a redistributor.
    pub fn write_gicr<V: RegisterValue, A>(&self, cpu: usize, register: Reg<V, A>, value: V) {
        self.write_at(self.frame(cpu), register, value);
    }

    /// Writes a register of the ITS.
    pub fn write_gits<V: RegisterValue, A>(&self, register: Reg<V, A>, value: V) {
        self.write_at(self.its, register, value);
    }

    fn write_at<V: RegisterValue, A>(&self, base: u64, register: Reg<V, A>, value: V) {
        let raw: V::Raw = value.into();
        self.write(base + u64::from(register.offset()), width_of::<V>(), raw.into());
    }

    /// Reads a register of the distributor.
    pub fn read_gicd<V: RegisterValue, A>(&self, register: Reg<V, A>) -> u64 {
        let base = self.gic.config().distributor;
        self.read(base + u64::from(register.offset()), width_of::<V>())
    }

    /// Reads a register of a redistributor.
    pub fn read_gicr<V: RegisterValue, A>(&self, cpu: usize, register: Reg<V, A>) -> u64 {
        self.read(self.frame(cpu) + u64::from(register.offset()), width_of::<V>())
    }

    /// Reads a register of the ITS.
    pub fn read_gits<V: RegisterValue, A>(&self, register: Reg<V, A>) -> u64 {
        self.read(self.its + u64::from(register.offset()), width_of::<V>())
    }

    /// Returns the frame with an interrupt's field, and the field's place in it. `cpu` is the CPU
    /// of a private interrupt.
    pub fn locate(&self, cpu: usize, field: Field, intid: u32) -> Option<(u64, IntIdLocation)> {
        let [distributor, extended, redistributor] = field.row().2;
        let intid = IntId::new(intid);
        let shared = distributor.locate(intid).or(extended.locate(intid));
        let private = redistributor.locate(intid).map(|at| (self.frame(cpu), at));
        shared.map(|at| (self.gic.config().distributor, at)).or(private)
    }

    /// Reads an interrupt's field.
    pub fn field(&self, cpu: usize, field: Field, intid: u32) -> u32 {
        let (base, at) = self.locate(cpu, field, intid).unwrap();
        let word = self.read(base + u64::from(at.register().offset()), AccessWidth::Word);
        at.extract(u32::try_from(word).unwrap())
    }

    /// Writes an interrupt's priority, group or trigger, or a one to another field.
    pub fn set_field(&self, cpu: usize, field: Field, intid: u32, value: u32) {
        let (base, at) = self.locate(cpu, field, intid).unwrap();
        let register = base + u64::from(at.register().offset());
        let word = match field {
            Field::Priority => {
                let byte = base + u64::from(at.byte_offset());
                return self.write(byte, AccessWidth::Byte, value.into());
            }
            Field::Group | Field::Trigger => {
                let old = self.read(register, AccessWidth::Word);
                at.insert(u32::try_from(old).unwrap(), value)
            }
            _ => at.mask(),
        };
        self.write(register, AccessWidth::Word, word.into());
    }

    /// Writes 1 to an SPI's bit of a distributor register.
    pub fn set_bit(&self, field: IntIdField, intid: u32) {
        let bit = field.locate(IntId::new(intid)).unwrap();
        self.write_gicd(bit.register(), bit.mask());
    }

    /// Writes the route of SPI `intid`.
    pub fn route(&self, intid: u32, route: Irouter) {
        self.write_gicd(gicd::irouter(IntId::new(intid)).unwrap(), route);
    }

    /// Routes SPI `intid` to a vCPU.
    pub fn route_to(&self, intid: u32, cpu: usize) {
        self.route(intid, Irouter::to(self.gic.config().cpus[cpu].affinity));
    }

    /// Lets any vCPU that participates take SPI `intid`.
    pub fn route_to_any(&self, intid: u32) {
        self.route(intid, Irouter::new().with_any_participating(true));
    }

    /// Raises the line of SPI `intid`.
    pub fn raise(&self, intid: u32) {
        self.gic.set_line(Line::Spi(intid), Level::High);
    }

    /// Enables SPI `intid`.
    pub fn enable_spi(&self, intid: u32) {
        self.set_field(0, Field::Enable, intid, 1);
    }

    /// Enables an SGI or PPI.
    pub fn enable_private(&self, cpu: usize, intid: u32) {
        self.set_field(cpu, Field::Enable, intid, 1);
    }

    /// Makes SPI `intid` edge-triggered.
    pub fn make_edge(&self, intid: u32) {
        self.set_field(0, Field::Trigger, intid, 2);
    }

    /// Writes a system register.
    pub fn msr(&mut self, cpu: usize, register: SysRegEncoding, value: u64) {
        self.vcpus[cpu].write_sysreg(register, value).unwrap();
    }

    /// Reads a system register.
    pub fn mrs(&mut self, cpu: usize, register: SysRegEncoding) -> u64 {
        self.vcpus[cpu].read_sysreg(register).unwrap()
    }

    /// Reads `ICC_IAR1_EL1`.
    pub fn acknowledge(&mut self, cpu: usize) -> u64 {
        self.mrs(cpu, icc::IAR1.encoding())
    }

    /// Acknowledges and ends an interrupt.
    pub fn handle(&mut self, cpu: usize) -> u64 {
        handle(&mut self.vcpus[cpu])
    }

    /// Writes `ICC_EOIR1_EL1`.
    pub fn end(&mut self, cpu: usize, intid: u64) {
        self.msr(cpu, icc::EOIR1.encoding(), intid);
    }
}

fn width_of<V: RegisterValue>() -> AccessWidth {
    AccessWidth::try_from(size_of::<V::Raw>()).unwrap()
}

/// Acknowledges and ends an interrupt at a vCPU. Returns 1023 if none is signaled.
pub fn handle(vcpu: &mut impl Interface) -> u64 {
    let intid = vcpu.read_sysreg(icc::IAR1.encoding()).unwrap();
    vcpu.write_sysreg(icc::EOIR1.encoding(), intid).unwrap();
    intid
}

/// Sends a device's message to the ITS.
pub fn send(gic: &Vgic, device: u32, event: u32) -> Delivery {
    gic.its(0).unwrap().signal_msi(DeviceId::new(device), message(event))
}

/// Returns a device's message to the ITS.
pub fn message(event: u32) -> MsiMessage {
    MsiMessage { address: ITS + u64::from(gits::TRANSLATER.offset()), data: event }
}
