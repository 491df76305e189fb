//! The machine that takes the steps: the model and its guest's configuration table.

use crate::scope::{CPUS, DEVICE, LPIS, Observation, Scope, Step};
use doorbell_test_support::guest::{self, RAM, sync};
use gic_arch::gicr;
use msi_types::Delivery;
use vgic::saved_state::SavedState;
use vgic::{GuestMemory, Sleep};

/// Address of the LPI configuration table, and of the first pending table.
const CONFIGURATIONS: u64 = RAM + 0x10_0000;
const PENDING: u64 = RAM + 0x20_0000;
/// Number of INTID bits.
const ID_BITS: u8 = 14;
/// Configuration of an LPI: the priority, and the enable bit.
const PRIORITY: u8 = 0xa0;
const ENABLE: u8 = 1;

/// A state from which a machine can continue.
#[derive(Clone, Debug)]
pub(crate) struct State {
    saved: SavedState,
    /// The LPIs' configurations in memory.
    configurations: [u8; LPIS.len()],
}

impl State {
    /// Serializes the state. Different states have different bytes.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        postcard::to_allocvec(&(&self.saved, self.configurations)).unwrap()
    }

    /// Deserializes a state.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Self {
        let (saved, configurations) = postcard::from_bytes(bytes).unwrap();
        Self { saved, configurations }
    }
}

pub(crate) struct Machine(guest::Machine);

impl Machine {
    /// Creates a machine without mappings, in which each LPI is enabled.
    pub(crate) fn new(scope: Scope) -> Self {
        let machine = guest::Machine::running(scope.config());
        machine.ram.write(CONFIGURATIONS, &[PRIORITY | ENABLE; 1 << ID_BITS]).unwrap();
        machine.enable_lpis(ID_BITS, CONFIGURATIONS, PENDING);
        if scope != Scope::DirectLpis {
            machine.start_its();
        }
        Self(machine)
    }

    pub(crate) fn save(&mut self) -> State {
        let mut saved = self.0.save();
        for its in &mut saved.its {
            // The queue's contents don't matter once it is empty.
            assert_eq!(its.creadr, its.cwriter, "commands remain in the queue");
            (its.creadr, its.cwriter) = (0, 0);
        }
        let mut configurations = [0; LPIS.len()];
        self.0.ram.read(CONFIGURATIONS, &mut configurations).unwrap();
        State { saved, configurations }
    }

    /// Takes a step from a state, while all vCPUs sleep.
    ///
    /// # Errors
    /// Describes a vCPU that still sleeps although an interrupt is signaled to it.
    pub(crate) fn step(&mut self, from: &State, step: Step) -> Result<Observation, String> {
        self.0.restore(&from.saved);
        self.0.ram.write(CONFIGURATIONS, &from.configurations).unwrap();
        let mut sleeping = Vec::new();
        for (cpu, vcpu) in self.0.vcpus.iter_mut().enumerate() {
            if vcpu.prepare_to_sleep() == Sleep::Ready {
                sleeping.push((cpu, self.0.kicks.of(cpu)));
            }
        }
        let observed = self.take(step);
        for (cpu, kicks) in sleeping {
            let is_woken = self.0.kicks.of(cpu) > kicks;
            let vcpu = &mut self.0.vcpus[cpu];
            vcpu.returned();
            if vcpu.irq_pending() && !is_woken {
                return Err(format!("vCPU {cpu} sleeps although an interrupt is signaled"));
            }
        }
        Ok(observed)
    }

    /// Takes a step from the current state.
    pub(crate) fn take(&mut self, step: Step) -> Observation {
        let machine = &mut self.0;
        match step {
            Step::Command(command) => {
                let before = machine.gic.command_faults(0).unwrap().count;
                machine.queue([command].into_iter().chain((0..CPUS).map(sync)));
                machine.finish_queue();
                let after = machine.gic.command_faults(0).unwrap().count;
                return Observation::Executed(before == after);
            }
            Step::Send { event } => {
                return Observation::Sent(machine.send(DEVICE, event) == Delivery::Pending);
            }
            Step::Handle { cpu } => {
                let intid = u32::try_from(machine.handle(cpu)).unwrap();
                return Observation::Acknowledged((intid != 1023).then_some(intid));
            }
            Step::Configure { lpi, enable } => {
                let address = CONFIGURATIONS + u64::from(lpi - LPIS[0]);
                machine.ram.write(address, &[PRIORITY | u8::from(enable)]).unwrap();
            }
            Step::SetLpi { cpu, lpi } => machine.write_gicr(cpu, gicr::SETLPIR, lpi.into()),
            Step::ClearLpi { cpu, lpi } => machine.write_gicr(cpu, gicr::CLRLPIR, lpi.into()),
            Step::Invalidate { cpu, lpi } => {
                machine.write_gicr(cpu, gicr::INVLPIR, lpi.into());
                self.wait_for_invalidation(cpu);
            }
            Step::InvalidateAll { cpu } => {
                machine.write_gicr(cpu, gicr::INVALLR, 0);
                self.wait_for_invalidation(cpu);
            }
        }
        Observation::Nothing
    }

    fn wait_for_invalidation(&self, cpu: usize) {
        let read = || u32::try_from(self.0.read_gicr(cpu, gicr::SYNCR)).unwrap();
        while gicr::Syncr::from(read()).busy() {}
    }
}
