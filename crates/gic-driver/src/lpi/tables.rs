//! The configuration table and the pending tables: made, or taken over, and given to
//! redistributors.

use super::{
    AdoptionRefused, Attached, Collected, LpiError, LpiMessages, Lpis, PendingLpis, StaleAt,
};
use crate::platform::{NoTable, allocate_table};
use crate::redistributor::{
    LpiClearing, LpiTables, NegotiatedTables, PendingContents, Redistributor, is_coherent,
};
use crate::{
    Block, Coherence, GicError, GicPlatform, Observed, PhysicalRegion, Table, TableLayout,
};
use gic_arch::gicr::{Pendbaser, Propbaser};
use gic_arch::lpi::{
    CONFIG_TABLE_ALIGNMENT, PENDING_TABLE_ALIGNMENT, PENDING_TABLE_RESERVED, config_table_bytes,
    pending_table_bytes,
};
use gic_arch::{Lpi, gicd};

const CONFIG: &str = "LPI configuration table";
const PENDING: &str = "LPI pending table";

/// The configuration table.
#[derive(Debug)]
pub(super) struct ConfigTable {
    table: Table,
    origin: TableOrigin,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum TableOrigin {
    Allocated,
    Adopted,
}

impl ConfigTable {
    /// The table's memory if it is ours to release.
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

/// A configuration table that was in use, with the INTID bits that it covers.
#[derive(Debug)]
pub(super) struct AdoptedConfig {
    pub(super) table: ConfigTable,
    pub(super) id_bits: u8,
}

/// A redistributor's pending table, while it is in use and afterwards.
#[derive(Debug)]
pub(super) struct PendingTable {
    /// RD_base.
    redistributor: u64,
    table: Table,
    contents: Contents,
    tables: NegotiatedTables,
}

/// The known contents of a pending table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Contents {
    /// The redistributor uses it, so that it is undefined; or used it until it lost its state.
    Undefined,
    /// The redistributor wrote it back.
    Flushed,
    /// All zero.
    Zero,
}

/// A new, zeroed configuration table: every LPI disabled.
pub(super) fn allocate_config<P: GicPlatform>(
    platform: &P,
    id_bits: u8,
    address_bits: u8,
) -> Result<ConfigTable, LpiError> {
    let (bytes, align) = (config_table_bytes(id_bits), CONFIG_TABLE_ALIGNMENT);
    let table =
        allocate(platform, CONFIG, TableLayout::new(bytes, align).with_address_bits(address_bits))?;
    Ok(ConfigTable { table, origin: TableOrigin::Allocated })
}

/// Deals with LPIs that are enabled already, so that afterwards they are disabled everywhere, or
/// enabled with one table that was taken over and in which every LPI is disabled.
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

/// [`Lpis::attach`].
pub(super) fn attach<P: GicPlatform>(
    lpis: &Lpis<P>,
    redistributor: &Redistributor<P::Mmio>,
) -> Result<Attached, GicError> {
    if !redistributor.typer().plpis() {
        return Err(LpiError::NotSupported(Block::Redistributor(redistributor.address())).into());
    }
    let known = remove_pending(lpis, redistributor.address());
    let (mut table, prior_use) = match known {
        Some(table) => (table, PriorUse::Yes),
        None => (first_pending(lpis, redistributor)?, PriorUse::No),
    };
    let result = if redistributor.lpis_enabled() {
        verify(lpis, redistributor, &table).map(|()| PendingLpis::Kept)
    } else {
        start(lpis, redistributor, &mut table, prior_use)
    };
    let tables = table.tables;
    insert_pending(lpis, table);
    Ok(Attached { tables, pending: result? })
}

/// Use of the pending table before this attach.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum PriorUse {
    Yes,
    No,
}

/// The table for a redistributor that was never attached: its own if LPIs are enabled, else a new
/// one.
fn first_pending<P: GicPlatform>(
    lpis: &Lpis<P>,
    redistributor: &Redistributor<P::Mmio>,
) -> Result<PendingTable, GicError> {
    let id_bits = lpis.id_bits;
    let address = redistributor.address();
    if !redistributor.lpis_enabled() {
        let (bytes, align) = (pending_table_bytes(id_bits), PENDING_TABLE_ALIGNMENT);
        let layout = TableLayout::new(bytes, align).with_address_bits(lpis.address_bits);
        let table = allocate(&*lpis.platform, PENDING, layout)?;
        let tables =
            NegotiatedTables { config: Coherence::NonCoherent, pending: Coherence::NonCoherent };
        return Ok(PendingTable {
            redistributor: address,
            table,
            contents: Contents::Zero,
            tables,
        });
    }
    let block = Block::Redistributor(address);
    let (config, pending) = redistributor.lpi_bases();
    let expected = lpis.config.table.address;
    if config.address() != expected {
        let reason = AdoptionRefused::OtherConfigTable { found: config.address(), expected };
        return Err(LpiError::AlreadyEnabled { block, reason }.into());
    }
    note_stale(lpis, redistributor).map_err(|reason| LpiError::AlreadyEnabled { block, reason })?;
    let region =
        PhysicalRegion { base: pending.address(), bytes: pending_table_bytes(config.id_bits()) };
    let Some(table) = lpis.platform.adopt_table(region) else {
        forget_stale(lpis, address);
        let reason = AdoptionRefused::PendingNotReserved { address: pending.address() };
        return Err(LpiError::AlreadyEnabled { block, reason }.into());
    };
    let tables = adopted_coherence(lpis, config, pending);
    lpis.note_coherence(tables.config);
    Ok(PendingTable { redistributor: address, table, contents: Contents::Undefined, tables })
}

/// Records a redistributor whose pending LPIs may be a previous kernel's. Direct LPIs are cleared
/// by the redistributor's own registers, at any time; an ITS needs an event for each.
fn note_stale<P: GicPlatform>(
    lpis: &Lpis<P>,
    redistributor: &Redistributor<P::Mmio>,
) -> Result<(), AdoptionRefused> {
    let at = StaleAt {
        address: redistributor.address(),
        processor_number: redistributor.processor_number(),
    };
    let messages = lpis.messages.with(&*lpis.platform, |messages| *messages);
    lpis.allocator.with(&*lpis.platform, |allocator| {
        if messages == Some(LpiMessages::Direct) {
            allocator.note_stale(at);
            return Ok(());
        }
        allocator.add_stale(at).map_err(|_| AdoptionRefused::LpisInUse)
    })
}

fn forget_stale<P: GicPlatform>(lpis: &Lpis<P>, address: u64) {
    lpis.allocator.with(&*lpis.platform, |allocator| allocator.forget_stale(address));
}

fn adopted_coherence<P: GicPlatform>(
    lpis: &Lpis<P>,
    config: Propbaser,
    pending: Pendbaser,
) -> NegotiatedTables {
    let of = |coherent: bool| {
        let allowed = lpis.access == crate::TableAccess::Negotiate;
        if coherent && allowed { Coherence::Coherent } else { Coherence::NonCoherent }
    };
    NegotiatedTables {
        config: of(is_coherent(config.shareability(), config.inner_cache())),
        pending: of(is_coherent(pending.shareability(), pending.inner_cache())),
    }
}

/// Checks that a redistributor with LPIs enabled uses the tables that the driver expects.
fn verify<P: GicPlatform>(
    lpis: &Lpis<P>,
    redistributor: &Redistributor<P::Mmio>,
    table: &PendingTable,
) -> Result<(), GicError> {
    let (config, pending) = redistributor.lpi_bases();
    let block = Block::Redistributor(redistributor.address());
    let expected = lpis.config.table.address;
    let reason = if config.address() != expected {
        AdoptionRefused::OtherConfigTable { found: config.address(), expected }
    } else if pending.address() != table.table.address {
        AdoptionRefused::OtherPendingTable {
            found: pending.address(),
            expected: table.table.address,
        }
    } else {
        return Ok(());
    };
    Err(LpiError::AlreadyEnabled { block, reason }.into())
}

/// LPIs are disabled: programs the tables and enables them.
fn start<P: GicPlatform>(
    lpis: &Lpis<P>,
    redistributor: &Redistributor<P::Mmio>,
    table: &mut PendingTable,
    prior_use: PriorUse,
) -> Result<PendingLpis, GicError> {
    if table.contents == Contents::Undefined {
        clear(&*lpis.platform, &table.table);
    }
    let (contents, fate) = match (table.contents, prior_use) {
        (Contents::Flushed, _) => (PendingContents::Pending, PendingLpis::Kept),
        (Contents::Undefined, PriorUse::Yes) => (PendingContents::Zero, PendingLpis::Lost),
        (Contents::Zero, _) | (Contents::Undefined, PriorUse::No) => {
            (PendingContents::Zero, PendingLpis::Kept)
        }
    };
    table.tables = redistributor.program_lpi_tables(
        &*lpis.platform,
        &LpiTables::new(lpis.config.table.address, table.table.address, lpis.id_bits)
            .with_contents(contents)
            .with_access(lpis.access),
    )?;
    lpis.note_coherence(table.tables.config);
    if contents == PendingContents::Zero {
        forget_stale(lpis, redistributor.address());
    }
    redistributor.start_lpis();
    table.contents = Contents::Undefined;
    Ok(fate)
}

/// [`Lpis::detach`].
pub(super) fn detach<P: GicPlatform>(
    lpis: &Lpis<P>,
    redistributor: &Redistributor<P::Mmio>,
) -> Result<PendingLpis, GicError> {
    let Some(mut table) = remove_pending(lpis, redistributor.address()) else {
        return Ok(PendingLpis::Kept);
    };
    let flushed = flush(lpis, redistributor);
    if flushed == Ok(true) {
        table.contents = Contents::Flushed;
    }
    // Undefined although LPIs are disabled: the redistributor lost its power, and wrote nothing.
    let lost = table.contents == Contents::Undefined;
    insert_pending(lpis, table);
    flushed.map(|_| if lost { PendingLpis::Lost } else { PendingLpis::Kept })
}

/// Makes a redistributor write its pending table; `false` if it did not.
fn flush<P: GicPlatform>(
    lpis: &Lpis<P>,
    redistributor: &Redistributor<P::Mmio>,
) -> Result<bool, GicError> {
    let possible = redistributor.lpis_enabled() && redistributor.can_disable_lpis();
    Ok(possible && redistributor.disable_lpis(&*lpis.platform)? == LpiClearing::Cleared)
}

/// [`Lpis::collect_pending`].
pub(super) fn collect<P: GicPlatform>(
    lpis: &Lpis<P>,
    redistributor: &Redistributor<P::Mmio>,
    mut found: impl FnMut(Lpi),
) -> Collected {
    let Some(mut table) = remove_pending(lpis, redistributor.address()) else {
        return Collected::All;
    };
    let answer = match table.contents {
        Contents::Zero => Collected::All,
        Contents::Undefined => Collected::Unknown,
        Contents::Flushed => empty(&*lpis.platform, &mut table, |lpi| {
            if lpis.check(lpi).is_ok() {
                found(lpi);
            }
        }),
    };
    insert_pending(lpis, table);
    answer
}

/// Reads a table that was written back, and clears it.
fn empty<P: GicPlatform>(
    platform: &P,
    table: &mut PendingTable,
    mut found: impl FnMut(Lpi),
) -> Collected {
    let PendingTable { table, contents, tables, .. } = table;
    // A table that cannot be read is as good as undefined: nothing of it may become pending again.
    *contents = Contents::Undefined;
    let lpis = PENDING_TABLE_RESERVED.min(table.bytes)..table.bytes;
    if platform.observe(table, lpis.clone(), tables.pending) == Observed::No {
        return Collected::Unknown;
    }
    for offset in lpis {
        let byte = platform.load8(table, offset);
        for bit in (0..8).filter(|bit| byte & 1 << bit != 0) {
            if let Some(lpi) = lpi_at(offset, bit) {
                found(lpi);
            }
        }
    }
    clear(platform, table);
    *contents = Contents::Zero;
    Collected::All
}

/// The LPI that has this bit of a pending table.
fn lpi_at(offset: u64, bit: u32) -> Option<Lpi> {
    let intid = u32::try_from(offset.checked_mul(8)?).ok()?.checked_add(bit)?;
    Lpi::try_from(intid).ok()
}

fn remove_pending<P: GicPlatform>(lpis: &Lpis<P>, redistributor: u64) -> Option<PendingTable> {
    lpis.pending.with(&*lpis.platform, |tables| {
        let index = tables.iter().position(|table| table.redistributor == redistributor)?;
        Some(tables.swap_remove(index))
    })
}

/// The room was reserved for all redistributors: nothing is allocated under the lock.
fn insert_pending<P: GicPlatform>(lpis: &Lpis<P>, table: PendingTable) {
    lpis.pending.with(&*lpis.platform, |tables| tables.push(table));
}

fn clear<P: GicPlatform>(platform: &P, table: &Table) {
    for offset in (0..table.bytes).step_by(8) {
        platform.store64(table, offset, 0);
    }
    platform.publish(table, 0..table.bytes, Coherence::NonCoherent);
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
