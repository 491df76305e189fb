//! The scopes: machines, and the steps that are possible in each state.

use doorbell_test_support::guest::program::{Shape, Step, itt};
use doorbell_test_support::guest::{
    clear, discard, int, inv, invall, mapc, mapd, mapti, movall, movi, unmapc, unmapd,
};

/// Number of vCPUs, and of collections.
pub(crate) const CPUS: u16 = 2;
/// The LPIs: event n is mapped to LPI n.
pub(crate) const LPIS: [u32; 2] = [8192, 8193];
/// The device that sends all messages.
const DEVICE: u32 = 0;
/// Number of EventID bits of the device.
const EVENT_BITS: u8 = 1;
/// Configurations of an LPI: masked, and not masked.
const CONFIGURATIONS: [u8; 2] = [0xa0, 0xa1];

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

    pub(crate) fn shape(self) -> Shape {
        let is_direct = self == Self::DirectLpis;
        Shape { cpus: CPUS, lpis: self.lpis().len(), is_direct, wired: None }
    }

    /// Returns the LPIs in the scope.
    fn lpis(self) -> &'static [u32] {
        if self == Self::OneEvent { &LPIS[..1] } else { &LPIS }
    }

    /// Returns all steps, in the order in which they are tried.
    pub(crate) fn steps(self) -> Vec<Step> {
        let masks = self != Self::TwoEvents;
        let configurations = CONFIGURATIONS.into_iter().filter(|_| masks);
        let masked = configurations.flat_map(|configuration| {
            self.lpis().iter().map(move |lpi| Step::Configure { lpi: *lpi, configuration })
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
            _ => (0..)
                .zip(self.lpis())
                .map(|(event, _)| Step::Send { device: DEVICE, event })
                .collect(),
        };
        let drained = cpus().flat_map(takes);
        drained.chain(signals).chain(cpus().flat_map(takes)).collect()
    }

    fn its_steps(self, masks: bool) -> Vec<Step> {
        let mut commands = vec![mapd(DEVICE, EVENT_BITS, itt(DEVICE)), unmapd(DEVICE)];
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
            steps.push(Step::Send { device: DEVICE, event });
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
