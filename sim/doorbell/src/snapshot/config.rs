//! Derives a machine's configuration from the identification registers in a saved state.

use anyhow::{Context, Result, bail, ensure};
use gic_arch::gicr::{Ctlr, Typer};
use gic_arch::gits::{Baser, Creadr, TableKind};
use gic_arch::{IntId, gicd, gits, icc};
use vgic::its::{ErrorPolicy, ItsConfig, RedistributorNaming};
use vgic::its::{PageSizes, TableLevels};
use vgic::saved_state::{CpuState, ItsState, SavedState};
use vgic::{CpuConfig, RedistributorRegion, SecurityView, VgicConfig};

/// Maximum number of vCPUs.
pub(super) const MOST_CPUS: usize = 512;
/// Maximum number of ITSes.
pub(super) const MOST_ITS: usize = 16;
/// Maximum product of the numbers of vCPUs and INTIDs, if the redistributors support direct LPIs.
const MOST_DIRECT_LPIS: u64 = 1 << 24;
/// Approximate limit on the number of mapped events.
pub(super) const EVENTS: u32 = 1 << 20;

/// Returns a configuration with which the model accepts `state`, provided that the model saved it.
pub(super) fn of(state: &SavedState) -> Result<VgicConfig> {
    let first = state.cpus.first().context("the state has no vCPUs")?;
    check_size(state.cpus.len(), state.its.len())?;
    let typer = gicd::Typer::from(state.distributor.typer);
    let redistributor = Typer::from(first.redistributor.typer);
    let control = Ctlr::from(first.redistributor.ctlr);
    let id_bits = typer.lpis().then(|| typer.id_bits());
    let lpis = id_bits.map_or(0, |bits| 1 << bits) * state.cpus.len() as u64;
    if redistributor.direct_lpi() && lpis > MOST_DIRECT_LPIS {
        bail!("its direct LPIs need too much memory: vCPUs × INTIDs = {lpis}");
    }
    let mut cpus: Vec<_> = state.cpus.iter().map(cpu).collect();
    cpus.sort_by_key(|cpu| cpu.processor_number);
    let extended_spis = typer.extended_spi_end().saturating_sub(IntId::EXTENDED_SPI_BASE);
    let config = VgicConfig::new(1)
        .with_spis(typer.spi_end().min(1020) - 32)
        .with_extended_spis(extended_spis)
        .with_extended_ppis(redistributor.extended_ppi_count())
        .with_security(security(typer))
        .with_priority_bits(icc::Ctlr::from(first.interface.ctlr).pri_bits_minus_one() + 1)
        .with_lpi_id_bits(id_bits)
        .with_direct_lpi(redistributor.direct_lpi())
        .with_one_of_n(!typer.no_1_of_n())
        .with_message_based_spis(typer.mbis())
        .with_can_clear_enable_lpis(control.ces())
        .with_redistributor_invalidation(control.ir())
        .with_iidr(state.distributor.iidr.into())
        .with_its_events(EVENTS)
        .with_its(state.its.iter().map(its).collect());
    placed(config, cpus)
}

pub(super) fn check_size(cpus: usize, its: usize) -> Result<()> {
    ensure!((1..=MOST_CPUS).contains(&cpus), "it has {cpus} vCPUs; 1 to {MOST_CPUS} are supported");
    ensure!(its <= MOST_ITS, "it has {its} ITSes; at most {MOST_ITS} are supported");
    Ok(())
}

/// Places the distributor and the redistributors at addresses that do not overlap an ITS. A saved
/// state does not contain these addresses.
pub(super) fn placed(config: VgicConfig, cpus: Vec<CpuConfig>) -> Result<VgicConfig> {
    let count = u32::try_from(cpus.len()).unwrap_or(u32::MAX);
    let mut config = config.with_cpus(cpus);
    let mut outcome = Ok(());
    for base in [0x0800_0000, 1 << 40, 1 << 41, 1 << 42] {
        let region = RedistributorRegion::new(base + 0xa_0000, count);
        config = config.with_distributor(base).with_redistributors(vec![region]);
        outcome = config.validate();
        if outcome.is_ok() {
            return Ok(config);
        }
    }
    outcome.context("the state does not fit any supported configuration")?;
    Ok(config)
}

const fn security(typer: gicd::Typer) -> SecurityView {
    if typer.security_extn() { SecurityView::NonSecure } else { SecurityView::Single }
}

fn cpu(state: &CpuState) -> CpuConfig {
    CpuConfig::new(state.affinity, Typer::from(state.redistributor.typer).processor_number())
}

fn its(state: &ItsState) -> ItsConfig {
    let typer = gits::Typer::from(state.typer);
    let [devices, collections, ..] = state.baser.map(Baser::from_bits);
    let levels = |table: Baser| {
        if table.indirect() { TableLevels::FlatOrTwo } else { TableLevels::Flat }
    };
    let has_table = collections.kind() == TableKind::Collections;
    let naming = if typer.pta() {
        RedistributorNaming::Address
    } else {
        RedistributorNaming::ProcessorNumber
    };
    let stalled = Creadr::from_bits(state.creadr).stalled();
    ItsConfig::new(state.base)
        .with_device_id_bits(typer.device_id_bits())
        .with_event_id_bits(typer.event_id_bits())
        .with_redistributor_naming(naming)
        .with_held_collections(typer.hcc())
        .with_device_table(levels(devices))
        .with_collection_table(has_table.then(|| levels(collections)))
        .with_collection_id_bits(typer.cil().then(|| typer.collection_id_bits()))
        .with_page_sizes(PageSizes::Any)
        .with_iidr(state.iidr.into())
        .with_error_policy(if stalled { ErrorPolicy::Stall } else { ErrorPolicy::Skip })
}
