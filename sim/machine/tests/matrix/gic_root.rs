//! A GICv3 with one kind of doorbell.

use crate::cell::{BoardConfig, Parent};
use crate::root::{Built, CPUS, Driven, Root, RootHardware, hyperv_functions};
use doorbell_hardware::bus::{Bus, Overlap};
use doorbell_hardware::hyperv::{HostMigration, HypervHost};
use doorbell_hardware::pci::Translator;
use doorbell_hardware::platform::MachinePlatform;
use doorbell_hardware::ram::Ram;
use doorbell_machine::Migration;
use doorbell_machine::sequential::{GicCpus, GicHardware};
use gic_driver::its::IdMap;
use gic_driver::{
    GicConfig, ItsMsiParent, Mbi, MbiConfig, PhysicalRegion, RedistributorRegion, SpiRange, V2m,
    V2mFrame,
};
use hyperv_vpci::guest::{SpiDomain, Vectors};
use hyperv_vpci::host::Injection;
use irq_domain::Interrupts;
use msi_types::{
    BlockRequest, Cpu, DeviceId, Fit, HwIrq, Initially, MsiParent, RequesterId, Rewrite, SignalMsi,
    WiredParent,
};
use std::num::NonZeroU16;
use std::sync::Arc;
use vgic::{V2mConfig, VgicConfig};

type Gic = gic_driver::Gic<MachinePlatform>;
type Its = gic_driver::Its<MachinePlatform>;
type DirectLpi = gic_driver::DirectLpi<MachinePlatform>;

const ITS: u64 = 0x0820_0000;
const FRAME: u64 = 0x0802_0000;
/// First SPI that is signaled by messages.
const FIRST_SPI: u32 = 64;
const SPIS: NonZeroU16 = NonZeroU16::new(64).expect("64 is not zero");
/// Number of INTID bits: the minimum for LPIs, because a migration visits every direct LPI.
const LPI_ID_BITS: u8 = 14;
const NO_VECTORS: &str = "a GIC has no x86 vectors";
/// Requester ID for a trial allocation that checks whether all vectors are free.
const NOBODY: RequesterId = RequesterId::new(0xff);

/// The hardware for a GIC with one kind of doorbell.
pub(crate) struct GicRootHardware {
    kind: Parent,
    gic: GicHardware,
    migration: Migration,
    /// The host end of a virtual bus.
    hyperv: Option<Arc<HypervHost>>,
}

impl GicRootHardware {
    /// Creates a GIC whose only doorbells are of this `kind`.
    pub(crate) fn new(plan: &BoardConfig, ram: Arc<Ram>) -> Built<Self> {
        let BoardConfig { parent: kind, migration, .. } = *plan;
        let mut config = VgicConfig::new(CPUS);
        match kind {
            Parent::Its => config.its = vec![vgic::its::ItsConfig::new(ITS)],
            Parent::DirectLpi => config.direct_lpi = true,
            Parent::Mbi => config.message_based_spis = true,
            Parent::V2m => config.v2m = vec![V2mConfig::new(FRAME, FIRST_SPI, SPIS.get().into())],
            Parent::HypervSpi => {}
            Parent::X86Vector | Parent::HypervApic => return Err(NO_VECTORS.into()),
        }
        config.lpi_id_bits = matches!(kind, Parent::Its | Parent::DirectLpi).then_some(LPI_ID_BITS);
        let gic = GicHardware::new(config, ram)?;
        let hyperv = (kind == Parent::HypervSpi)
            .then(|| {
                let injection = Injection::Spi(gic.lines());
                HypervHost::new(injection, CPUS, &hyperv_functions(), host_migration(migration))
            })
            .transpose()?;
        Ok(Self { kind, gic, migration, hyperv })
    }

    /// Returns the driver configuration.
    fn driver_config(&self) -> GicConfig {
        let config = self.gic.config();
        let regions = config.redistributors.iter().map(|region| {
            RedistributorRegion::new(PhysicalRegion {
                base: region.base,
                bytes: region.stride * u64::from(region.count),
            })
        });
        let affinities = config.cpus.iter().map(|cpu| cpu.affinity).collect();
        GicConfig::new(config.distributor, regions.collect(), affinities)
    }
}

/// Returns the migration mode for the host end of a virtual bus, which migrates whenever the GIC
/// does.
const fn host_migration(migration: Migration) -> HostMigration {
    match migration {
        Migration::Never => HostMigration::Never,
        Migration::AtRandom { .. } => HostMigration::InFlight,
    }
}

/// Brings up the driver for the GIC itself, on all CPUs.
fn bring_up(platform: &Arc<MachinePlatform>, config: GicConfig, cpus: &GicCpus) -> Built<Arc<Gic>> {
    let gic = Gic::new(Arc::clone(platform), config)?;
    for cpu in gic.cpus() {
        let on = cpus.execute(cpu, |registers| gic.cpu_on(cpu, registers));
        on.ok_or("the CPU does not exist")??;
    }
    Ok(Arc::new(gic))
}

impl RootHardware for GicRootHardware {
    fn upstream(&self) -> Arc<dyn SignalMsi<RequesterId>> {
        if let Some(host) = &self.hyperv {
            return Arc::clone(host) as _;
        }
        let doorbells = Arc::new(self.gic.doorbells());
        Arc::new(Translator::new(doorbells, |requester| Some(DeviceId::new(requester.get()))))
    }

    fn claim(&self, bus: &mut Bus) -> Result<(), Overlap> {
        self.gic.attach(bus)
    }

    fn drive(self: Box<Self>, platform: &Arc<MachinePlatform>) -> Built<Driven> {
        let config = self.driver_config();
        let cpus = self.gic.power_on(self.migration, platform);
        let gic = bring_up(platform, config, &cpus)?;
        let doorbells = match self.hyperv {
            Some(host) => open_hyperv(host, &gic)?,
            None => MsiDriver::bring_up(self.kind, &gic)?,
        };
        let parent = doorbells.parent();
        let wired: Arc<dyn WiredParent> = Arc::clone(&gic) as _;
        let root = GicRoot { cpus, gic, doorbells };
        Ok(Driven { root: Box::new(root), parent, wired: Some(wired) })
    }
}

/// The driver for a kind of doorbell.
enum MsiDriver {
    Its(Arc<Its>),
    DirectLpi(Arc<DirectLpi>),
    Spis(Arc<dyn MsiParent>),
    Hyperv(Arc<HypervHost>, Arc<hyperv_vpci::guest::Bus>),
}

impl MsiDriver {
    fn bring_up(kind: Parent, gic: &Arc<Gic>) -> Built<Self> {
        match kind {
            Parent::Its => bring_up_its(gic).map(Self::Its),
            Parent::DirectLpi => Ok(Self::DirectLpi(Arc::new(DirectLpi::new(Arc::clone(gic))?))),
            Parent::Mbi => {
                let range = SpiRange { first: HwIrq::new(FIRST_SPI), count: SPIS };
                let config = MbiConfig::new(vec![range]);
                Ok(Self::Spis(Arc::new(Mbi::new(gic, config)?)))
            }
            Parent::V2m => {
                let platform = Arc::clone(gic.platform());
                let frame = V2m::new(platform, Arc::clone(gic) as _, &[V2mFrame::new(FRAME)]);
                Ok(Self::Spis(Arc::new(frame?)))
            }
            Parent::HypervSpi => Err("the host end was not created".into()),
            Parent::X86Vector | Parent::HypervApic => Err(NO_VECTORS.into()),
        }
    }

    fn parent(&self) -> Arc<dyn MsiParent> {
        match self {
            Self::Its(its) => Arc::new(ItsMsiParent::new(Arc::clone(its), IdMap::identity())),
            Self::DirectLpi(direct) => Arc::clone(direct) as _,
            Self::Spis(spis) => Arc::clone(spis),
            Self::Hyperv(_, bus) => Arc::clone(bus) as _,
        }
    }
}

/// Opens the virtual bus, whose driver creates the SPI domain.
fn open_hyperv(host: Arc<HypervHost>, gic: &Arc<Gic>) -> Built<MsiDriver> {
    let platform = gic.platform();
    let domain = SpiDomain::new(Arc::clone(gic) as _, Arc::clone(platform) as _)?;
    let bus = host.open(platform, Vectors::Spis(Arc::new(domain)))?;
    Ok(MsiDriver::Hyperv(host, bus))
}

fn bring_up_its(gic: &Arc<Gic>) -> Built<Arc<Its>> {
    let config = gic_driver::ItsConfig::new(ITS, CPUS.into());
    let its = Its::new(Arc::clone(gic), &config)?;
    for cpu in gic.cpus() {
        its.cpu_on(cpu)?;
    }
    Ok(Arc::new(its))
}

struct GicRoot {
    cpus: GicCpus,
    gic: Arc<Gic>,
    doorbells: MsiDriver,
}

impl GicRoot {
    /// Describes the SPIs that the domain has not released. Returns `None` if all SPIs have been
    /// released.
    fn claimed_spis(&self) -> Option<String> {
        let wired: &dyn WiredParent = &*self.gic;
        let first = HwIrq::new(FIRST_SPI);
        let claimed = wired.claim(first, SPIS).map(|()| wired.release(first, SPIS));
        claimed.err().map(|error| format!("SPIs ({error})"))
    }

    fn kept_lpis(&self) -> Option<String> {
        let lpis = self.gic.lpis().ok()?;
        let used = lpis.count() - lpis.available();
        (used != 0).then(|| format!("{used} LPIs"))
    }
}

/// Describes the SPIs that are still allocated. Returns `None` if all SPIs can be allocated.
fn kept_spis(spis: &dyn MsiParent) -> Option<String> {
    let request = BlockRequest::new(SPIS, Fit::new(Rewrite::Masked), Cpu::new(0))
        .with_initially(Initially::Masked);
    let all = spis.attach(NOBODY, SPIS.get().into()).and_then(|attachment| {
        let block = spis.allocate(&attachment, &request).map(|block| spis.free(&attachment, block));
        spis.detach(attachment);
        block
    });
    all.err().map(|error| format!("SPIs ({error})"))
}

impl Root for GicRoot {
    fn serve(&self, interrupts: &Interrupts) {
        self.cpus.serve(interrupts);
    }

    fn settle(&self) {
        self.cpus.settle();
    }

    fn strays(&self) -> u64 {
        self.cpus.unhandled()
    }

    fn kept(&self) -> Option<String> {
        match &self.doorbells {
            MsiDriver::Its(_) | MsiDriver::DirectLpi(_) => self.kept_lpis(),
            MsiDriver::Spis(spis) => kept_spis(&**spis),
            MsiDriver::Hyperv(host, _) => host.kept().or_else(|| self.claimed_spis()),
        }
    }

    fn migrated(&self) -> Result<u64, String> {
        self.cpus.migrated()
    }

    fn silent_fault(&self) -> Option<String> {
        match &self.doorbells {
            MsiDriver::Its(its) => its.faults().1.map(|fault| fault.to_string()),
            MsiDriver::DirectLpi(direct) => direct.take_fault().map(|fault| fault.to_string()),
            MsiDriver::Spis(_) => None,
            MsiDriver::Hyperv(host, _) => host.migrated_in_flight().err(),
        }
    }
}
