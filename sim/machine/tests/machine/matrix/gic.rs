//! A GICv3 with one kind of doorbell, brought up from a description.

use crate::board::{Built, CPUS, Driven, Root};
use crate::cell::{BoardConfig, Endpoint, Parent};
use crate::device::ECAM;
use doorbell_hardware::hyperv::{HostMigration, HypervHost};
use doorbell_hardware::platform::MachinePlatform;
use doorbell_hardware::ram::Ram;
use doorbell_machine::Migration;
use doorbell_machine::sequential::{GicCpus, GicHardware, silent_fault};
use gic_arch::{IntId, gicd};
use gic_bringup::{Irqchip, Options};
use gic_firmware::{
    Controller, ControllerIndex, ControllerKind, CpuNode, Description, Fact, Gic, IntIdSpan,
    MapEntry, MsiRouting, PciHost, Region, Target,
};
use hyperv_vpci::guest::{SpiDomain, Vectors};
use hyperv_vpci::host::Injection;
use msi_types::{
    BlockRequest, Cpu, DeviceId, Fit, HwIrq, Initially, MsiParent, RequesterId, Rewrite,
};
use std::num::NonZeroU16;
use std::sync::Arc;
use vgic::{V2mConfig, VgicConfig};

const ITS: u64 = 0x0820_0000;
const FRAME: u64 = 0x0802_0000;
/// First SPI that is signaled by messages.
const FIRST_SPI: u32 = 64;
const SPIS: NonZeroU16 = NonZeroU16::new(64).expect("64 is not zero");
/// Number of INTID bits: the minimum for LPIs, because a migration visits every direct LPI.
const LPI_ID_BITS: u8 = 14;
/// Requester ID for a trial allocation that checks whether all vectors are free.
const NOBODY: RequesterId = RequesterId::new(0xff);

/// Creates a GIC whose only doorbells are of this `kind`.
pub(crate) fn hardware(kind: Parent, ram: Arc<Ram>) -> Built<GicHardware> {
    let config = VgicConfig::new(CPUS);
    let lpis = Some(LPI_ID_BITS);
    let config = match kind {
        Parent::Its => config.with_its(vec![vgic::its::ItsConfig::new(ITS)]).with_lpi_id_bits(lpis),
        Parent::DirectLpi => config.with_direct_lpi(true).with_lpi_id_bits(lpis),
        Parent::Mbi => config.with_message_based_spis(true),
        Parent::V2m => config.with_v2m(vec![V2mConfig::new(FRAME, FIRST_SPI, SPIS.get().into())]),
        Parent::HypervSpi | Parent::X86Vector | Parent::HypervApic => config,
    };
    Ok(GicHardware::new(config, ram)?)
}

/// Creates the host end of a virtual bus, if the board has one. The host end migrates whenever the
/// GIC does.
pub(crate) fn hyperv(plan: &BoardConfig, gic: &GicHardware) -> Built<Option<Arc<HypervHost>>> {
    let migration = match plan.migration {
        Migration::Never => HostMigration::Never,
        Migration::AtRandom { .. } => HostMigration::InFlight,
    };
    let host = (plan.parent == Parent::HypervSpi).then(|| {
        HypervHost::new(Injection::Spi(gic.lines()), CPUS, &Endpoint::functions(), migration)
    });
    Ok(host.transpose()?)
}

/// Returns firmware's description of the GIC, and of a host bridge whose requester IDs equal their
/// DeviceIDs.
fn description(kind: Parent, config: &VgicConfig) -> Description {
    let region = |base, size| Region::new(base, size).unwrap();
    let frame = region(config.distributor, gicd::FRAME_SIZE);
    let redistributors =
        config.redistributors.iter().map(|it| region(it.base, it.stride * u64::from(it.count)));
    let cpus = config.cpus.iter().zip(0..);
    let controller = match kind {
        Parent::Its => Some(Controller::its("/gic/its", region(ITS, 0x2_0000))),
        Parent::DirectLpi => Some(Controller::new("/gic", ControllerKind::DirectLpi, None)),
        Parent::Mbi => {
            let mut mbi = Controller::new("/gic", ControllerKind::Mbi, Some(frame));
            let spis = IntIdSpan::new(IntId::new(FIRST_SPI), SPIS.get().into()).unwrap();
            mbi.ranges.push(Fact::stated(spis));
            Some(mbi)
        }
        Parent::V2m => {
            Some(Controller::new("/gic/v2m", ControllerKind::V2m, Some(region(FRAME, 0x1000))))
        }
        Parent::HypervSpi | Parent::X86Vector | Parent::HypervApic => None,
    };
    let everyone = MapEntry {
        rid_base: RequesterId::new(0),
        length: 0x1_0000,
        target: Target::Controller(ControllerIndex::new(0)),
        device_id_base: DeviceId::new(0),
    };
    Description {
        cpus: cpus.map(|(cpu, at)| CpuNode::new(format!("/cpus/{at}"), cpu.affinity)).collect(),
        gic: Some(Gic::v3("/gic", frame, redistributors)),
        controllers: controller.into_iter().collect(),
        hosts: vec![PciHost::ecam("/pcie", region(ECAM, 1 << 20), MsiRouting::map([everyone]))],
        ..Description::default()
    }
}

/// Powers on the GIC and brings up its drivers on all CPUs.
pub(crate) fn drive(
    plan: &BoardConfig,
    gic: GicHardware,
    hyperv: Option<Arc<HypervHost>>,
    platform: &Arc<MachinePlatform>,
) -> Built<Driven> {
    let description = description(plan.parent, gic.config());
    let cpus = gic.power_on(plan.migration, platform);
    let options = Options::default().with_surroundings(plan.surroundings());
    let host = Arc::clone(platform) as _;
    let irqchip = Irqchip::with(Arc::clone(platform), host, description, &options)?;
    for cpu in irqchip.cpus() {
        let on = cpus.execute(cpu, |registers| irqchip.cpu_on(cpu, registers, |_| ()));
        on.ok_or("the CPU does not exist")??;
    }
    let interrupts = irqchip.interrupts().clone();
    cpus.serve(&interrupts);
    let parent: Arc<dyn MsiParent> = match &hyperv {
        Some(host) => {
            let domain = SpiDomain::new(irqchip.gic().wired(), Arc::clone(platform) as _)?;
            host.open(platform, Vectors::Spis(Arc::new(domain)))?
        }
        None => {
            let host = irqchip.description().hosts.first().ok_or("no host bridge")?;
            irqchip.pci_parent(host, Endpoint::PciMsix.requester())?
        }
    };
    let root = GicRoot { cpus, irqchip, hyperv, parent: Arc::clone(&parent) };
    Ok(Driven { root: Box::new(root), parent, interrupts })
}

struct GicRoot {
    cpus: GicCpus,
    irqchip: Irqchip<MachinePlatform>,
    hyperv: Option<Arc<HypervHost>>,
    parent: Arc<dyn MsiParent>,
}

impl GicRoot {
    fn kept_lpis(&self) -> Option<String> {
        let lpis = self.irqchip.gic().v3()?.lpis().ok()?;
        let used = lpis.count() - lpis.available();
        (used != 0).then(|| format!("{used} LPIs"))
    }

    /// Describes the SPIs that a virtual bus has not released.
    fn claimed_spis(&self) -> Option<String> {
        let (wired, first) = (self.irqchip.gic().wired(), HwIrq::new(FIRST_SPI));
        let claimed = wired.claim(first, SPIS).map(|()| wired.release(first, SPIS));
        claimed.err().map(|error| format!("SPIs ({error})"))
    }

    /// Describes the SPIs that are still allocated. Returns `None` if all SPIs can be allocated.
    fn kept_spis(&self) -> Option<String> {
        let request = BlockRequest::new(SPIS, Fit::new(Rewrite::Masked), Cpu::new(0))
            .with_initially(Initially::Masked);
        let spis = &self.parent;
        let all = spis.attach(NOBODY, SPIS.get().into()).and_then(|attachment| {
            let block = spis.allocate(&attachment, &request);
            let block = block.map(|block| spis.free(&attachment, block));
            spis.detach(attachment);
            block
        });
        all.err().map(|error| format!("SPIs ({error})"))
    }
}

impl Root for GicRoot {
    fn settle(&self) {
        self.cpus.settle();
    }

    fn strays(&self) -> u64 {
        self.cpus.unhandled()
    }

    fn kept(&self) -> Option<String> {
        let spis = self.irqchip.controllers().any(|(_, driver)| driver.spis().is_some());
        match &self.hyperv {
            Some(host) => host.kept().or_else(|| self.claimed_spis()),
            None if spis => self.kept_spis(),
            None => self.kept_lpis(),
        }
    }

    fn migrated(&self) -> Result<u64, String> {
        self.cpus.migrated()
    }

    fn silent_fault(&self) -> Option<String> {
        let host = self.hyperv.as_ref().and_then(|host| host.migrated_in_flight().err());
        silent_fault(&self.irqchip).or(host)
    }
}
