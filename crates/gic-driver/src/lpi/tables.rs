//! The configuration table and the pending tables, allocated or adopted.

use super::{AdoptionRefused, LpiError};
use crate::platform::{NoTable, allocate_table};
use crate::redistributor::{LpiClearing, NegotiatedTables, Redistributor};
use crate::{Block, Coherence, GicError, GicPlatform, PhysicalRegion, Table, TableLayout};
use alloc::vec::Vec;
use gic_arch::gicd;
use gic_arch::gicr::Propbaser;
use gic_arch::lpi::{
    CONFIG_TABLE_ALIGNMENT, MIN_ID_BITS, PENDING_TABLE_ALIGNMENT, config_table_bytes,
    pending_table_bytes,
};

const CONFIG: &str = "LPI configuration table";
const PENDING: &str = "LPI pending table";

/// The configuration table.
#[derive(Debug)]
pub(super) struct ConfigTable {
    table: Table,
    origin: TableOrigin,
}

/// Origin of a table's memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum TableOrigin {
    Allocated,
    Adopted,
}

impl ConfigTable {
    /// Returns the table's memory if the driver must release it.
    pub(super) fn take_unused(&mut self) -> Option<Table> {
        (self.origin == TableOrigin::Allocated).then(|| self.table.take())
    }

    pub(super) fn table(&self) -> &Table {
        &self.table
    }

    pub(super) fn is_adopted(&self) -> bool {
        self.origin == TableOrigin::Adopted
    }
}

/// A configuration table that was already in use, with the number of INTID bits that it covers.
#[derive(Debug)]
pub(super) struct AdoptedConfig {
    pub(super) table: ConfigTable,
    pub(super) id_bits: u8,
}

/// A redistributor's pending table, before, during and after use.
#[derive(Debug)]
pub(super) struct PendingTable {
    /// RD_base.
    pub(super) redistributor: u64,
    pub(super) table: Table,
    pub(super) origin: TableOrigin,
    /// Whether an earlier attach used the table.
    pub(super) prior_use: PriorUse,
    pub(super) contents: Contents,
    pub(super) tables: NegotiatedTables,
}

impl PendingTable {
    /// Returns the table's memory if the driver must release it.
    pub(super) fn take_unused(self) -> Option<Table> {
        let unused = self.prior_use == PriorUse::No && self.origin == TableOrigin::Allocated;
        unused.then_some(self.table)
    }
}

/// Whether this driver has used a pending table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum PriorUse {
    Yes,
    No,
}

/// Known contents of a pending table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Contents {
    /// Undefined contents, because the redistributor is using the table, or used it until the
    /// redistributor lost its state.
    Undefined,
    /// Pending LPIs that the redistributor wrote back.
    Flushed,
    /// All zero.
    Zero,
}

/// Allocates a zeroed configuration table, with every LPI disabled.
pub(super) fn allocate_config<P: GicPlatform>(
    platform: &P,
    id_bits: u8,
    address_bits: u8,
) -> Result<ConfigTable, LpiError> {
    let (bytes, align) = (config_table_bytes(id_bits), CONFIG_TABLE_ALIGNMENT);
    let layout = TableLayout { bytes, align, address_bits, node: None };
    let table = allocate(platform, CONFIG, layout)?;
    Ok(ConfigTable { table, origin: TableOrigin::Allocated })
}

/// Handles redistributors with LPIs already enabled. On success, LPIs are either disabled at all
/// redistributors, or redistributors with LPIs still enabled share one adopted table in which every
/// LPI is disabled.
pub(super) fn adopt_config<'a, P: GicPlatform>(
    platform: &P,
    typer: gicd::Typer,
    redistributors: impl Iterator<Item = &'a Redistributor<P::Mmio>>,
) -> Result<Option<AdoptedConfig>, GicError>
where
    P::Mmio: 'a,
{
    let mut adopted: Option<AdoptedConfig> = None;
    for redistributor in redistributors.filter(|redistributor| redistributor.lpis_enabled()) {
        if redistributor.can_disable_lpis()
            && redistributor.disable_lpis(platform)? == LpiClearing::Cleared
        {
            continue;
        }
        let (base, _) = redistributor.lpi_bases();
        let id_bits = base.id_bits().min(typer.id_bits());
        if id_bits < MIN_ID_BITS {
            return Err(LpiError::TooFewIdBits { bits: id_bits }.into());
        }
        let block = Block::Redistributor(redistributor.address());
        let refused = match &mut adopted {
            Some(adopted) if adopted.table.table.address == base.address() => {
                adopted.id_bits = adopted.id_bits.min(id_bits);
                continue;
            }
            Some(adopted) => AdoptionRefused::OtherConfigTable {
                found: base.address(),
                expected: adopted.table.table.address,
            },
            None => match take_over_config(platform, base, id_bits) {
                Some(table) => {
                    adopted = Some(AdoptedConfig { table, id_bits });
                    continue;
                }
                None => AdoptionRefused::ConfigNotReserved { address: base.address() },
            },
        };
        if redistributor.disable_lpis(platform)? == LpiClearing::Stuck {
            return Err(LpiError::AlreadyEnabled { block, reason: refused }.into());
        }
    }
    Ok(adopted)
}

fn take_over_config<P: GicPlatform>(
    platform: &P,
    base: Propbaser,
    id_bits: u8,
) -> Option<ConfigTable> {
    let bytes = config_table_bytes(id_bits);
    let table = platform.adopt_table(PhysicalRegion { base: base.address(), bytes })?;
    for offset in 0..bytes.min(table.bytes) {
        platform.store8(&table, offset, 0);
    }
    platform.publish(&table, 0..bytes.min(table.bytes), Coherence::NonCoherent);
    Some(ConfigTable { table, origin: TableOrigin::Adopted })
}

/// Provides a pending table for each redistributor that supports LPIs: a new one, or the previous
/// kernel's table if LPIs are still enabled. All tables are allocated here, because a CPU starts
/// with interrupts masked and must not allocate memory. `pending` must have room for all tables. A
/// table that cannot be adopted is omitted, so attaching its redistributor will fail.
pub(super) fn provide_pending<'a, P: GicPlatform>(
    platform: &P,
    pending: &mut Vec<PendingTable>,
    redistributors: impl Iterator<Item = &'a Redistributor<P::Mmio>>,
    (id_bits, address_bits): (u8, u8),
) -> Result<(), LpiError>
where
    P::Mmio: 'a,
{
    let (bytes, align) = (pending_table_bytes(id_bits), PENDING_TABLE_ALIGNMENT);
    let layout = TableLayout { bytes, align, address_bits, node: None };
    for redistributor in redistributors.filter(|redistributor| redistributor.typer().plpis()) {
        let (table, origin, contents) = if redistributor.lpis_enabled() {
            let (config, pending) = redistributor.lpi_bases();
            let bytes = pending_table_bytes(config.id_bits());
            let in_use = PhysicalRegion { base: pending.address(), bytes };
            let Some(table) = platform.adopt_table(in_use) else { continue };
            (table, TableOrigin::Adopted, Contents::Undefined)
        } else {
            (allocate(platform, PENDING, layout)?, TableOrigin::Allocated, Contents::Zero)
        };
        pending.push(PendingTable {
            redistributor: redistributor.address(),
            table,
            origin,
            prior_use: PriorUse::No,
            contents,
            tables: NegotiatedTables {
                config: Coherence::NonCoherent,
                pending: Coherence::NonCoherent,
            },
        });
    }
    Ok(())
}

fn allocate<P: GicPlatform>(
    platform: &P,
    table: &'static str,
    layout: TableLayout,
) -> Result<Table, LpiError> {
    allocate_table(platform, layout).map_err(|error| match error {
        NoTable::NoMemory => LpiError::NoMemory { table, bytes: layout.bytes },
        NoTable::Misplaced(address) => LpiError::Misplaced { table, address },
    })
}
