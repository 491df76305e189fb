//! The drivers of everything that takes messages.

use crate::cpu::{DirectLpi, Gic, Its};
use crate::error::RunError;
use crate::machine::{ControllerChoice, LpiNumbers, Machine, itses, usable};
use crate::oracle::Routes;
use doorbell_hardware::platform::MachinePlatform;
use gic_arch::Lpi;
use gic_driver::its::IdMap;
use gic_driver::lpi::LpiRange;
use gic_driver::spi_messages::{Doorbell, SpiMessages};
use gic_driver::{Alignment, Coherence, ItsConfig, ItsMsiParent, Mbi, MbiConfig, SpiRange, V2m, V2mFrame};
use gic_firmware::{Controller, ControllerIndex, ControllerKind, Description, IntIdSpan};
use msi_types::{MsiParent, WiredParent};
use std::collections::BTreeMap;
use std::num::{NonZeroU16, NonZeroU32};
use std::sync::Arc;

/// Who takes messages, by what firmware calls them.
#[derive(Default)]
pub(crate) struct Controllers {
    itses: BTreeMap<ControllerIndex, Arc<Its>>,
    direct_lpi: Option<Arc<DirectLpi>>,
    /// Those that ask for no DeviceID: one parent for all.
    plain: BTreeMap<ControllerIndex, Arc<dyn MsiParent>>,
    /// How many SPIs the drivers found behind doorbells that ring some.
    spis: BTreeMap<ControllerIndex, u32>,
    /// LPIs that are somebody else's.
    taken: Option<LpiRange>,
}

impl Controllers {
    /// Sets up each that takes part. The CPUs are on.
    pub(super) fn bring_up(
        machine: &Machine,
        gic: &Arc<Gic>,
        cpus: usize,
        routes: &Arc<Routes>,
    ) -> Result<Self, RunError> {
        let (description, choice) = (&*machine.description, machine.controller);
        let itses = bring_up_itses(description, choice, gic, cpus)?;
        let mut new = Self { itses, ..Self::default() };
        for (index, described) in usable(description).filter(|(_, it)| choice.serves(it)) {
            match described.kind {
                ControllerKind::DirectLpi => {
                    let direct_lpi =
                        DirectLpi::new(Arc::clone(gic)).map_err(|error| failed(described, &error))?;
                    let direct_lpi = Arc::new(direct_lpi.with_observer(Arc::clone(routes) as _));
                    if machine.lpis == LpiNumbers::Long {
                        new.taken = Some(take_short(gic).map_err(|error| failed(described, &error))?);
                    }
                    new.plain.insert(index, Arc::clone(&direct_lpi) as _);
                    new.direct_lpi = Some(direct_lpi);
                }
                ControllerKind::Mbi => {
                    new.add(index, bring_up_mbi(description, described, gic)?);
                }
                ControllerKind::V2m => {
                    new.add(index, bring_up_frame(described, gic)?);
                }
                ControllerKind::Its | ControllerKind::Other(_) => {}
            }
        }
        Ok(new)
    }

    fn add<D: Doorbell + 'static>(
        &mut self,
        index: ControllerIndex,
        driver: SpiMessages<MachinePlatform, D>,
    ) {
        let spis = driver.ranges().iter().map(|range| u32::from(range.count.get())).sum();
        self.spis.insert(index, spis);
        self.plain.insert(index, Arc::new(driver));
    }

    /// How many SPIs there are behind its doorbell; `None` if it rings others.
    pub(super) fn spis(&self, controller: ControllerIndex) -> Option<u32> {
        self.spis.get(&controller).copied()
    }

    /// What a bus or device that firmware sends to `controller` signals through; at an ITS as `map` says. `None` if it
    /// is not driven.
    pub(super) fn parent(
        &self,
        controller: ControllerIndex,
        map: impl FnOnce() -> IdMap,
    ) -> Option<Arc<dyn MsiParent>> {
        if let Some(its) = self.itses.get(&controller) {
            return Some(Arc::new(ItsMsiParent::new(Arc::clone(its), map())));
        }
        self.plain.get(&controller).cloned()
    }

    /// Is it driven?
    pub(crate) fn drives(&self, controller: ControllerIndex) -> bool {
        self.itses.contains_key(&controller) || self.plain.contains_key(&controller)
    }

    /// The ITSes.
    pub(super) fn itses(&self) -> impl Iterator<Item = &Arc<Its>> {
        self.itses.values()
    }

    /// Direct LPIs, if they are driven.
    pub(crate) fn direct_lpi(&self) -> Option<&Arc<DirectLpi>> {
        self.direct_lpi.as_ref()
    }

    /// What could not be reported in any other way.
    pub(super) fn silent_fault(&self) -> Option<String> {
        let direct = self.direct_lpi.iter().find_map(|it| it.take_fault()).map(|fault| fault.to_string());
        direct.or_else(|| self.itses().find_map(|its| fault_of(its)))
    }
}

/// Takes every LPI that 16 bits can name.
fn take_short(gic: &Gic) -> Result<LpiRange, String> {
    let short = Lpi::FIRST.get()..1 << 16;
    let lpis = gic.lpis().map_err(|error| error.to_string())?;
    let count = NonZeroU32::new(short.end - short.start).unwrap_or(NonZeroU32::MIN);
    lpis.allocate_within(count, Alignment::ONE, short).map_err(|error| error.to_string())
}

fn fault_of(its: &Its) -> Option<String> {
    match its.faults() {
        (0, _) => None,
        (count, Some(last)) => Some(format!("{last} ({count} such faults)")),
        (count, None) => Some(format!("its@{:x}: {count} faults", its.base())),
    }
}

fn bring_up_itses(
    description: &Description,
    choice: ControllerChoice,
    gic: &Arc<Gic>,
    cpus: usize,
) -> Result<BTreeMap<ControllerIndex, Arc<Its>>, RunError> {
    let mut up = BTreeMap::new();
    for (index, described, base) in itses(description).filter(|(_, its, _)| choice.serves(its)) {
        let failed = |reason: &dyn ToString| failed(described, reason);
        let config = ItsConfig {
            coherence: match described.coherence.value {
                gic_firmware::Coherence::ByRegister => Coherence::Coherent,
                gic_firmware::Coherence::NonCoherent => Coherence::NonCoherent,
            },
            machine: description.quirk_names().map(str::to_owned).collect(),
            ..ItsConfig::new(base, u32::try_from(cpus).unwrap_or(u32::MAX))
        };
        let its = Its::new(Arc::clone(gic), &config).map_err(|error| failed(&error))?;
        for cpu in gic.cpus() {
            its.cpu_on(cpu).map_err(|error| failed(&error))?;
        }
        up.insert(index, Arc::new(its));
    }
    Ok(up)
}

fn bring_up_mbi(
    description: &Description,
    described: &Controller,
    gic: &Arc<Gic>,
) -> Result<Mbi<MachinePlatform>, RunError> {
    let frame = described.registers.as_ref().map(|registers| registers.base());
    let distributor = description.gic.as_ref().map(|gic| gic.distributor.base());
    let ranges = described.ranges.iter().filter_map(|range| spi_range(range.value)).collect();
    let config = MbiConfig { ranges, alias: frame.filter(|frame| Some(*frame) != distributor) };
    Mbi::new(gic, config).map_err(|error| failed(described, &error))
}

/// `None` for an empty one.
fn spi_range(span: IntIdSpan) -> Option<SpiRange> {
    let count = NonZeroU16::new(u16::try_from(span.count()).unwrap_or(u16::MAX))?;
    Some(SpiRange { first: span.first().vector(), count })
}

fn bring_up_frame(described: &Controller, gic: &Arc<Gic>) -> Result<V2m<MachinePlatform>, RunError> {
    let address = described.registers.as_ref().map_or(0, |registers| registers.base());
    let stated = described.ranges.first();
    let frame = V2mFrame {
        first_spi: stated.map(|range| range.first().get()),
        spi_count: stated.map(|range| range.count()),
        ..V2mFrame::new(address)
    };
    let wired: Arc<dyn WiredParent> = Arc::clone(gic) as _;
    V2m::new(Arc::clone(gic.platform()), wired, &[frame]).map_err(|error| failed(described, &error))
}

fn failed(described: &Controller, reason: &dyn ToString) -> RunError {
    RunError::BringUp { controller: described.id.to_string(), reason: reason.to_string() }
}
