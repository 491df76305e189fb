//! A machine of the model that carries out programs.
#![expect(clippy::unwrap_used, clippy::missing_panics_doc, reason = "a test fails by panicking")]

mod wired;

use super::{Kind, Observation, Program, Step, Target, Way, Wired};
use crate::guest::abstract_gic::ENABLED;
use crate::guest::physical::Physical;
use crate::guest::{
    AbstractGic, COLLECTIONS, DEVICES, Half, ITS, Machine, RAM, Ram, memory, message, sync,
};
use gic_arch::gicr::{self, Syncr};
use gic_arch::gits::{self, Baser, Creadr, Ctlr, Cwriter, PageSize};
use gic_arch::its::{Command, Level1Entry, RawCommand};
use gic_arch::{Reg, RegisterValue};
use msi_types::{Delivery, DeviceId};
use std::sync::Arc;
use vgic::its::{CommandFault, ErrorPolicy, ItsConfig};
use vgic::saved_state::SavedState;
use vgic::{GuestMemory, Progress, Sleep, VgicConfig, VmMemory};

/// Address of the LPI configuration table.
pub const CONFIGURATIONS: u64 = RAM + 0x10_0000;
/// Address of the first pending table.
const PENDING: u64 = RAM + 0x20_0000;
/// Number of INTID bits.
const ID_BITS: u8 = 14;
const FIRST_LPI: u32 = 8192;

/// The kind of machine that a program needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shape {
    /// Number of vCPUs.
    pub cpus: u16,
    /// Number of LPIs, starting at INTID 8192.
    pub lpis: usize,
    /// The redistributors have direct LPIs, and there is no ITS.
    pub is_direct: bool,
    /// The program uses wired interrupts, and there is no ITS.
    pub wired: Option<Wired>,
}

impl Shape {
    /// Returns the model's configuration.
    pub fn config(self) -> VgicConfig {
        self.config_with(ErrorPolicy::Skip, 1024)
    }

    /// Returns the model's configuration. Each access of the guest does this much work.
    pub fn config_with(self, policy: ErrorPolicy, work: u32) -> VgicConfig {
        let config = VgicConfig::new(self.cpus)
            .with_spis(32)
            .with_lpi_id_bits(Some(ID_BITS))
            .with_lpi_work_per_access(work)
            .with_redistributor_invalidation(true);
        if let Some(wired) = self.wired {
            return self.wired_config(wired, work);
        }
        if self.is_direct {
            return config.with_direct_lpi(true);
        }
        let its = ItsConfig::new(ITS).with_error_policy(policy).with_work_per_access(work);
        config.with_its(vec![its])
    }

    /// Returns an abstract GIC without mappings, in which each LPI is enabled.
    pub fn reference(self) -> AbstractGic {
        AbstractGic::new(self.cpus.into(), self.lpis)
    }
}

impl Way {
    /// Carries out a program with this kind of vCPU.
    ///
    /// # Errors
    /// Explains what the abstract GIC does not allow.
    pub fn judge(self, kind: Kind, program: &Program) -> Result<(), String> {
        self.reach(kind, program).map(drop)
    }

    /// Carries out a program like [`judge`](Self::judge). Returns a description of the state that
    /// it leaves.
    ///
    /// # Errors
    /// Explains what the abstract GIC does not allow.
    pub fn reach(self, kind: Kind, program: &Program) -> Result<String, String> {
        let work = if self == Self::InPieces { 1 } else { 1024 };
        let config = program.shape.config_with(ErrorPolicy::Skip, work);
        let mut bench = Bench::of(kind, program.shape, false, vec![config]);
        bench.way = self;
        let mut program = program.clone();
        if matches!(self, Self::Restored | Self::Moved) {
            // Each restore makes an edge of a high level, because the physical interrupt fires.
            program.steps.retain(|step| !step.changes_linked_trigger());
        }
        program.judge(&mut bench)?;
        Ok(format!("{:?} {:?}", bench.machine.save(), bench.physical))
    }
}

/// The model, and the guest that carries out programs on it. All vCPUs sleep during each step, and
/// a step that signals an interrupt to a vCPU must wake it.
#[expect(missing_debug_implementations, reason = "a test prints the parts")]
pub struct Bench {
    /// The machine.
    pub machine: Machine<VmMemory<Ram>, Half>,
    kind: Kind,
    shape: Shape,
    /// Configurations of the machines that continue after [`Step::Restore`], in turn.
    successors: Vec<VgicConfig>,
    /// How steps are carried out.
    pub way: Way,
    /// Number of machines before this one.
    moves: usize,
    /// A restored machine has saved another state.
    is_changed: bool,
    /// A command has waited for vCPUs that don't sleep.
    is_stuck: bool,
    /// Command faults at this machine that have been observed.
    observed_faults: u64,
    /// Command faults at earlier machines that have not been observed.
    earlier_faults: u64,
    /// The physical interrupts to which wired interrupts are linked.
    physical: Arc<Physical>,
}

impl Bench {
    /// Creates a machine without mappings, in which each LPI is enabled.
    pub fn new(shape: Shape) -> Self {
        Self::configured(shape, false, vec![shape.config()])
    }

    /// Creates a machine with the first configuration, which may restrict the shape's one in what
    /// guests cannot observe. A two-level device table has only its first page.
    pub fn configured(shape: Shape, two_levels: bool, successors: Vec<VgicConfig>) -> Self {
        Self::of(Kind::SOFTWARE, shape, two_levels, successors)
    }

    fn of(kind: Kind, shape: Shape, two_levels: bool, successors: Vec<VgicConfig>) -> Self {
        let config = successors[0].clone();
        let mut machine = Machine::with_interfaces(config, memory(), kind.interface);
        if shape.wired.is_none() {
            machine.start();
            machine.ram.write(CONFIGURATIONS, &[ENABLED; 1 << ID_BITS]).unwrap();
        }
        machine.enable_lpis(ID_BITS, CONFIGURATIONS, PENDING);
        if !shape.is_direct && shape.wired.is_none() {
            let table = Baser::new().with_page_size(PageSize::Size64K).with_valid(true);
            let devices = table.with_address(DEVICES).with_indirect(two_levels);
            if two_levels {
                let page = Level1Entry::new().with_valid(true).with_address(RAM + 0x3f_0000);
                machine.ram.write(DEVICES, &page.into_bits().to_le_bytes()).unwrap();
            }
            machine.start_its_with(devices, table.with_address(COLLECTIONS));
        }
        let bench = Self {
            machine,
            kind,
            shape,
            successors,
            way: Way::Plain,
            moves: 0,
            is_changed: false,
            is_stuck: false,
            observed_faults: 0,
            earlier_faults: 0,
            physical: Arc::default(),
        };
        Self::first_links(shape).for_each(|line| bench.physical.link(line, true));
        bench.link();
        bench
    }

    /// Takes a step, without the checks of sleeping vCPUs.
    pub fn take_awake(&mut self, step: Step) -> Observation {
        let machine = &mut self.machine;
        match step {
            Step::Command(command) => return self.execute(command),
            Step::Post(command) => self.post([command.encode()]),
            Step::PostUnknown(opcode) => self.post([[opcode.into(), 0, 0, 0]]),
            Step::Wait => {
                self.finish_queue();
                return Observation::RefusedPosts(self.take_faults());
            }
            Step::Send { device, event } => {
                let is_listed = self.way == Way::Awake && event % 2 == 0 && {
                    let (from, sent) = (DeviceId::new(device), message(event));
                    machine.vcpus.iter_mut().any(|vcpu| vcpu.list_message(from, sent))
                };
                let is_pending = || machine.send(device, event) == Delivery::Pending;
                return Observation::Sent(is_listed || is_pending());
            }
            Step::Handle { cpu } => {
                let intid = u32::try_from(machine.handle(cpu)).unwrap();
                return Observation::Acknowledged((intid != 1023).then_some(intid));
            }
            Step::Configure { lpi, configuration } => {
                let address = CONFIGURATIONS + u64::from(lpi - FIRST_LPI);
                machine.ram.write(address, &[configuration]).unwrap();
            }
            Step::SetLpi { cpu, lpi } => self.write_gicr(cpu, gicr::SETLPIR, lpi.into()),
            Step::ClearLpi { cpu, lpi } => self.write_gicr(cpu, gicr::CLRLPIR, lpi.into()),
            Step::Invalidate { cpu, lpi } => self.write_gicr(cpu, gicr::INVLPIR, lpi.into()),
            Step::InvalidateAll { cpu } => self.write_gicr(cpu, gicr::INVALLR, 0),
            Step::EnableLpis { cpu, enable } => {
                self.write_gicr(cpu, gicr::CTLR, gicr::Ctlr::new().with_enable_lpis(enable));
            }
            Step::EnableIts { enable } => self.enable_its(enable),
            Step::Restore => self.move_on(),
            _ => return self.take_wired(step),
        }
        Observation::Nothing
    }

    fn execute(&mut self, command: Command) -> Observation {
        let syncs = (0..self.shape.cpus).map(sync);
        self.post([command].into_iter().chain(syncs).map(Command::encode));
        self.finish_queue();
        if self.take_faults() == 0 {
            return Observation::Executed;
        }
        let last = self.machine.gic.command_faults(0).unwrap().last;
        Observation::Refused(match last.map(|last| last.fault) {
            Some(CommandFault::Refused(error)) => Some(error.reason),
            _ => None,
        })
    }

    /// Writes commands to the queue of the ITS, which must be enabled to execute them.
    fn post(&mut self, commands: impl IntoIterator<Item = RawCommand>) {
        if !self.its_control().enabled() {
            self.enable_its(true);
        }
        self.machine.write_gits(gits::CWRITER, self.machine.prepare_raw(commands));
    }

    /// Waits until the queue is empty. If it stalls at a wrong command, replaces the command.
    fn finish_queue(&mut self) {
        self.attend();
        if self.way == Way::Awake && !self.shape.is_direct {
            self.is_stuck |= !self.machine.is_queue_done();
        }
        while !self.shape.is_direct && !self.machine.is_queue_done() {
            self.attend();
            let machine = &self.machine;
            let read = Creadr::from_bits(machine.read_gits(gits::CREADR));
            if read.stalled() {
                let image = sync(0).encode().map(u64::to_le_bytes);
                let place = machine.queue + u64::from(read.offset());
                machine.ram.write(place, image.as_flattened()).unwrap();
                let written = Cwriter::from_bits(machine.read_gits(gits::CWRITER));
                machine.write_gits(gits::CWRITER, written.with_retry(true));
            }
        }
    }

    fn its_control(&self) -> Ctlr {
        Ctlr::from_bits(u32::try_from(self.machine.read_gits(gits::CTLR)).unwrap())
    }

    fn enable_its(&mut self, enable: bool) {
        self.machine.write_gits(gits::CTLR, Ctlr::new().with_enabled(enable));
        while !enable && !self.its_control().quiescent() {
            self.attend();
        }
    }

    /// Writes a register of a redistributor, and polls until the redistributor is no longer busy.
    fn write_gicr<V: RegisterValue, A>(&mut self, cpu: usize, register: Reg<V, A>, value: V) {
        self.machine.write_gicr(cpu, register, value);
        loop {
            let [syncr, ctlr] =
                [self.machine.read_gicr(cpu, gicr::SYNCR), self.machine.read_gicr(cpu, gicr::CTLR)]
                    .map(|value| u32::try_from(value).unwrap());
            if !Syncr::from(syncr).busy() && !gicr::Ctlr::from(ctlr).rwp() {
                return;
            }
            self.attend();
        }
    }

    /// Lets kicked vCPUs leave their guests and enter them again, if vCPUs don't sleep, and takes
    /// physical interrupts. An exit may make an interrupt pending at another vCPU.
    fn attend(&mut self) {
        for _ in 0..3 {
            if self.way == Way::Awake {
                self.machine.vcpus.iter_mut().for_each(Half::attend);
            }
            self.take_physical();
        }
    }

    /// Returns the number of command faults since the last call.
    fn take_faults(&mut self) -> u64 {
        let now = self.count_faults();
        let earlier = std::mem::take(&mut self.earlier_faults);
        earlier + now - std::mem::replace(&mut self.observed_faults, now)
    }

    /// Returns the number of command faults at this machine.
    pub fn count_faults(&self) -> u64 {
        self.machine.gic.command_faults(0).map_or(0, |faults| faults.count)
    }

    /// Saves the machine, and continues on its successor.
    fn move_on(&mut self) {
        let saved = self.machine.save();
        self.moves += 1;
        let config = self.successors[self.moves % self.successors.len()].clone();
        let mut other = self.successor(config);
        other.restore(&saved);
        self.is_changed |= other.save() != saved;
        self.continue_on(other);
        self.physical.end_all();
        self.link();
    }

    /// Creates a machine of this kind in its reset state, with the same memory.
    pub fn successor(&self, config: VgicConfig) -> Machine<VmMemory<Ram>, Half> {
        Machine::with_interfaces(config, self.machine.ram.clone(), self.kind.interface)
    }

    /// Continues on another machine, which has the state of this one.
    pub fn continue_on(&mut self, other: Machine<VmMemory<Ram>, Half>) {
        self.earlier_faults += self.count_faults() - self.observed_faults;
        self.machine = other;
        self.observed_faults = self.count_faults();
    }

    /// Restores a state into the machine.
    pub fn restore(&mut self, saved: &SavedState) {
        self.earlier_faults += self.count_faults() - self.observed_faults;
        self.machine.restore(saved);
        self.observed_faults = self.count_faults();
        self.physical.end_all();
    }
}

impl Target for Bench {
    fn take(&mut self, step: Step) -> Result<Observation, String> {
        if step.is_read() {
            // A read of a field leaves the guests anyway.
            if !matches!(step, Step::ReadField { .. }) {
                self.attend();
            }
            return Ok(self.take_wired(step));
        }
        let mut sleeping = Vec::new();
        let kicks = self.machine.kicks.clone();
        for (cpu, vcpu) in self.machine.vcpus.iter_mut().enumerate() {
            let is_awake = step.runs(cpu) || step == Step::Restore || self.way == Way::Awake;
            if !is_awake && vcpu.prepare_to_sleep() == Sleep::Ready {
                sleeping.push((cpu, kicks.of(cpu)));
            }
        }
        self.attend();
        let observed = self.take_awake(step);
        self.attend();
        // A vCPU that wakes up does a piece of the remaining work, and no vCPU sleeps meanwhile.
        let is_busy = self.machine.gic.poll() == Progress::Unfinished;
        for (cpu, before) in sleeping {
            let is_woken = kicks.of(cpu) > before;
            let vcpu = &mut self.machine.vcpus[cpu];
            vcpu.returned();
            if !is_busy && vcpu.inputs().any() && !is_woken {
                return Err(format!("vCPU {cpu} sleeps although an interrupt is signaled"));
            }
        }
        match self.way {
            Way::Restored => {
                let saved = self.machine.save();
                self.restore(&saved);
            }
            Way::Moved => self.move_on(),
            Way::Plain | Way::InPieces | Way::Awake => {}
        }
        if self.is_stuck {
            return Err("commands wait although all kicked vCPUs have left their guests".into());
        }
        if self.is_changed {
            return Err("the state differs once it has been restored".into());
        }
        Ok(observed)
    }
}
