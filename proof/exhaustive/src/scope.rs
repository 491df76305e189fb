//! The scopes: machines, and the steps that are possible in each state.

use doorbell_test_support::guest::{
    AbstractGic, ITS, RAM, clear, discard, int, inv, invall, mapc, mapd, mapti, movall, movi,
    unmapc, unmapd,
};
use gic_arch::its::Command;
use std::fmt;
use vgic::VgicConfig;
use vgic::its::ItsConfig;

/// Number of vCPUs, and of collections.
pub(crate) const CPUS: u16 = 2;
/// The LPIs: event n is mapped to LPI n.
pub(crate) const LPIS: [u32; 2] = [8192, 8193];
/// The device that sends all messages.
pub(crate) const DEVICE: u32 = 0;
/// Number of EventID bits of the device.
const EVENT_BITS: u8 = 1;
const ITT: u64 = RAM + 0x3_0000;

/// A machine, and the steps that are possible in each of its states.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Scope {
    /// An ITS with one event, whose LPI is masked and unmasked.
    OneEvent,
    /// An ITS with two events.
    TwoEvents,
    /// An ITS with two events, whose LPIs are masked and unmasked.
    TwoMaskedEvents,
    /// Two direct LPIs, which are masked and unmasked.
    DirectLpis,
}

/// A step of the guest or of a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Step {
    /// The ITS executes a command, and then SYNC for each vCPU.
    Command(Command),
    /// The device sends a message to the ITS.
    Send { event: u32 },
    /// The guest changes an LPI's configuration in memory.
    Configure { lpi: u32, enable: bool },
    /// A vCPU acknowledges and ends an interrupt.
    Handle { cpu: usize },
    /// A write to `GICR_SETLPIR`.
    SetLpi { cpu: usize, lpi: u32 },
    /// A write to `GICR_CLRLPIR`.
    ClearLpi { cpu: usize, lpi: u32 },
    /// A write to `GICR_INVLPIR`.
    Invalidate { cpu: usize, lpi: u32 },
    /// A write to `GICR_INVALLR`.
    InvalidateAll { cpu: usize },
}

/// The observable part of a step's result.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Observation {
    Nothing,
    /// Whether the ITS has executed the command.
    Executed(bool),
    /// Whether the message has made an interrupt pending.
    Sent(bool),
    /// The acknowledged LPI, or `None` if no interrupt was signaled.
    Acknowledged(Option<u32>),
}

impl Scope {
    /// All scopes, with their names on the command line.
    pub(crate) const ALL: [(&str, Self); 4] = [
        ("one-event", Self::OneEvent),
        ("two-events", Self::TwoEvents),
        ("two-masked-events", Self::TwoMaskedEvents),
        ("direct-lpis", Self::DirectLpis),
    ];

    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(other, _)| *other == name).map(|(_, scope)| *scope)
    }

    pub(crate) fn config(self) -> VgicConfig {
        let config = VgicConfig::new(CPUS).with_spis(32).with_lpi_id_bits(Some(14));
        if self == Self::DirectLpis {
            config.with_direct_lpi(true)
        } else {
            config.with_its(vec![ItsConfig::new(ITS)])
        }
    }

    /// Returns the LPIs in the scope.
    pub(crate) fn lpis(self) -> &'static [u32] {
        if self == Self::OneEvent { &LPIS[..1] } else { &LPIS }
    }

    /// Returns all steps, in the order in which they are tried.
    pub(crate) fn steps(self) -> Vec<Step> {
        let masks = self != Self::TwoEvents;
        let enables = [false, true].into_iter().filter(|_| masks);
        let masked = enables.flat_map(|enable| {
            self.lpis().iter().map(move |lpi| Step::Configure { lpi: *lpi, enable })
        });
        let handled = (0..usize::from(CPUS)).map(|cpu| Step::Handle { cpu });
        let own =
            if self == Self::DirectLpis { self.direct_steps() } else { self.its_steps(masks) };
        own.into_iter().chain(masked).chain(handled).collect()
    }

    /// Returns the steps that continue without a restore after each step: the vCPUs take all
    /// interrupts, before and after each event or LPI has been signaled once more.
    pub(crate) fn probe(self) -> Vec<Step> {
        let cpus = || 0..usize::from(CPUS);
        let takes = |cpu| [Step::Handle { cpu }].repeat(self.lpis().len() + 1);
        let signals: Vec<_> = match self {
            Self::DirectLpis => {
                let all = |cpu| self.lpis().iter().map(move |lpi| Step::SetLpi { cpu, lpi: *lpi });
                cpus().flat_map(all).collect()
            }
            _ => (0..).zip(self.lpis()).map(|(event, _)| Step::Send { event }).collect(),
        };
        let drained = cpus().flat_map(takes);
        drained.chain(signals).chain(cpus().flat_map(takes)).collect()
    }

    fn its_steps(self, masks: bool) -> Vec<Step> {
        let mut commands = vec![mapd(DEVICE, EVENT_BITS, ITT), unmapd(DEVICE)];
        let mut steps = Vec::new();
        for collection in 0..CPUS {
            commands.extend((0..CPUS).map(|cpu| mapc(collection, cpu)));
            commands.push(unmapc(collection));
            commands.extend(masks.then(|| invall(collection)));
        }
        for (event, lpi) in (0..).zip(self.lpis()) {
            for collection in 0..CPUS {
                commands.push(mapti(DEVICE, event, *lpi, collection));
                commands.push(movi(DEVICE, event, collection));
            }
            commands.extend([discard, clear, int].map(|command| command(DEVICE, event)));
            commands.extend(masks.then(|| inv(DEVICE, event)));
            steps.push(Step::Send { event });
        }
        commands.extend([movall(0, 1), movall(1, 0)]);
        steps.extend(commands.into_iter().map(Step::Command));
        steps
    }

    fn direct_steps(self) -> Vec<Step> {
        let mut steps = Vec::new();
        for cpu in 0..usize::from(CPUS) {
            for lpi in self.lpis().iter().copied() {
                steps.push(Step::SetLpi { cpu, lpi });
                steps.push(Step::ClearLpi { cpu, lpi });
                steps.push(Step::Invalidate { cpu, lpi });
            }
            steps.push(Step::InvalidateAll { cpu });
        }
        steps
    }
}

impl Step {
    /// Takes the step in the abstract GIC.
    ///
    /// # Errors
    /// Explains why the observation is not allowed.
    pub(crate) fn check(self, gic: &mut AbstractGic, observed: Observation) -> Result<(), String> {
        let is_allowed = match (self, observed) {
            (Self::Handle { cpu }, Observation::Acknowledged(Some(lpi))) => {
                return gic.acknowledge(cpu, lpi);
            }
            (Self::Handle { cpu }, Observation::Acknowledged(None)) => return gic.find_none(cpu),
            (Self::Command(command), Observation::Executed(executed)) => {
                gic.execute(command) == executed
            }
            (Self::Send { event }, Observation::Sent(pending)) => {
                gic.send(DEVICE, event) == pending
            }
            (_, Observation::Nothing) => {
                self.apply(gic);
                true
            }
            _ => false,
        };
        if is_allowed { Ok(()) } else { Err(format!("{observed:?} is not allowed")) }
    }

    fn apply(self, gic: &mut AbstractGic) {
        match self {
            Self::Configure { lpi, enable } => gic.configure(lpi, enable),
            Self::SetLpi { cpu, lpi } => drop(gic.set_lpi(cpu, lpi)),
            Self::ClearLpi { cpu, lpi } => gic.clear_lpi(cpu, lpi),
            Self::Invalidate { cpu, lpi } => gic.invalidate(cpu, Some(lpi)),
            Self::InvalidateAll { cpu } => gic.invalidate(cpu, None),
            Self::Command(_) | Self::Send { .. } | Self::Handle { .. } => {}
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Command(command) => write!(f, "{command:x?}"),
            other => write!(f, "{other:?}"),
        }
    }
}
