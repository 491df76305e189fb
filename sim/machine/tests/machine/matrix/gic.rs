//! A GICv3 with one kind of doorbell, brought up from a description.

use super::board::{Built, CPUS, Driven, Root};
use super::cell::{BoardConfig, Endpoint, Parent};
use crate::board_trees;
use doorbell_hardware::hyperv::{HostMigration, HypervHost, MESSAGE_ADDRESS};
use doorbell_hardware::platform::MachinePlatform;
use doorbell_hardware::ram::Ram;
use doorbell_machine::sequential::{GicCpus, GicHardware, silent_fault};
use doorbell_machine::{BuildOptions, LpiNumbers, Migration};
use gic_bringup::{Irqchip, Options};
use gic_firmware::{ControllerKind, Description, Fact, Region};
use hyperv_vpci::guest::{SpiDomain, Vectors};
use hyperv_vpci::host::Injection;
use msi_types::{BlockRequest, Cpu, Fit, HwIrq, Initially, MsiParent, RequesterId, Rewrite};
use std::num::NonZeroU16;
use std::sync::Arc;

/// SPIs that a virtual bus may use.
const FIRST_SPI: u32 = 64;
const SPIS: NonZeroU16 = NonZeroU16::new(64).expect("64 is not zero");
/// Requester ID for a trial allocation that checks whether all vectors are free.
const NOBODY: RequesterId = RequesterId::new(0xff);

/// Returns the options for a machine with the minimum number of LPIs, because a migration visits
/// every direct LPI.
fn options() -> BuildOptions {
    BuildOptions { lpis: LpiNumbers::Few, ..BuildOptions::default() }
}

/// Creates a GIC whose only doorbells are of this `kind`.
pub(super) fn hardware(kind: Parent, ram: Arc<Ram>) -> Built<GicHardware> {
    Ok(GicHardware::described(&description(kind), &options(), ram)?)
}

/// Creates the host end of a virtual bus, if the board has one. The host end migrates whenever the
/// GIC does.
pub(super) fn hyperv(plan: &BoardConfig, gic: &GicHardware) -> Built<Option<Arc<HypervHost>>> {
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
fn description(kind: Parent) -> Description {
    let mut board = board_trees::bare(u8::try_from(CPUS).unwrap(), 0);
    let controller = match kind {
        Parent::Its => ControllerKind::Its,
        Parent::DirectLpi => ControllerKind::DirectLpi,
        Parent::Mbi => ControllerKind::Mbi,
        Parent::V2m => ControllerKind::V2m,
        Parent::HypervSpi | Parent::X86Vector => ControllerKind::Other("hyperv-vpci".to_owned()),
    };
    let mut controller = board_trees::controller(controller, 0, 0);
    if kind == Parent::HypervSpi {
        controller.registers = Region::new(MESSAGE_ADDRESS, 0x1000).map(Fact::stated);
    }
    board.controllers = vec![controller];
    board.hosts = vec![board_trees::host(0, board_trees::parent(0))];
    board
}

/// Powers on the GIC and brings up its drivers on all CPUs.
pub(super) fn drive(
    plan: &BoardConfig,
    gic: GicHardware,
    hyperv: Option<Arc<HypervHost>>,
    platform: &Arc<MachinePlatform>,
) -> Built<Driven> {
    let description = description(plan.parent);
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
    let parent: Arc<dyn MsiParent> = if let Some(host) = &hyperv {
        let domain = SpiDomain::new(irqchip.gic().wired(), Arc::clone(platform) as _)?;
        host.open(platform, Vectors::Spis(Arc::new(domain)))?
    } else {
        let host = irqchip.description().hosts.first().ok_or("no host bridge")?;
        irqchip.pci_parent(host, Endpoint::PciMsix.requester())?
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

    /// Describes the SPIs that are still allocated. Returns `None` if all of them can be allocated.
    fn kept_spis(&self, count: u32) -> Option<String> {
        let count = u16::try_from(count).ok().and_then(NonZeroU16::new)?;
        let request = BlockRequest::new(count, Fit::new(Rewrite::Masked), Cpu::new(0))
            .with_initially(Initially::Masked);
        let spis = &self.parent;
        let all = spis.attach(NOBODY, count.get().into()).and_then(|attachment| {
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
        let spis = self.irqchip.controllers().find_map(|(_, driver)| driver.spis());
        match (&self.hyperv, spis) {
            (Some(host), _) => host.kept().or_else(|| self.claimed_spis()),
            (None, Some(count)) => self.kept_spis(count),
            (None, None) => self.kept_lpis(),
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
