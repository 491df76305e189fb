//! Runs many cases until one fails or the time is up.

use super::access::{Access, Width};
use super::address_map::{CPUS, GICD, GICR_STRIDE, ITS, redistributor};
use super::compare::{Mismatch, ask, play};
use super::difference::Moment;
use super::family::Family;
use super::peer::Peer;
use super::script::Query;
use super::step::Step;
use super::world::World;
use anyhow::Result;
use proptest::strategy::{Strategy as _, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use std::time::Instant;

/// Limits of a search.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Maximum number of cases.
    pub cases: u32,
    /// Time at which the search ends.
    pub deadline: Option<Instant>,
    /// Seed of all random choices.
    pub seed: u64,
}

/// The result of a search.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    /// Number of cases (or registers) in which both machines agreed.
    pub agreed: u32,
    /// The smallest case found in which the machines disagreed.
    pub mismatch: Option<Mismatch>,
}

/// Maximum number of attempts to shrink a failing case.
const ATTEMPTS: u32 = 2000;

/// Reads every aligned word of every register frame after a reset.
///
/// # Errors
/// Returns an error if a machine has exited.
pub fn reset_values(model: &mut dyn Peer, qemu: &mut dyn Peer) -> Result<Vec<Finding>> {
    model.reset()?;
    qemu.reset()?;
    let redistributors = (0..CPUS).map(|cpu| (redistributor(cpu), GICR_STRIDE));
    let frames = [(GICD, 0x1_0000), (ITS, 0x2_0000)].into_iter().chain(redistributors);
    frames
        .map(|(base, size)| {
            let words = (base..base + size).step_by(4);
            let load = |at| Query {
                access: Access::Load { at, width: Width::Word },
                compares_inputs: false,
            };
            let queries: Vec<_> = words.map(load).collect();
            let mismatch = ask(&queries, Moment::AfterReset, model, qemu)?.map(alone);
            Ok(Finding { agreed: u32::try_from(queries.len())?, mismatch })
        })
        .collect()
}

/// Reduces a mismatch to its last read, because reads don't depend on each other.
fn alone(mismatch: Mismatch) -> Mismatch {
    let last = mismatch.script.last().cloned();
    Mismatch { script: last.into_iter().collect(), ..mismatch }
}

/// The object of a comparison: a family of cases in a world.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Comparison {
    /// Family of cases.
    pub family: Family,
    /// World.
    pub world: World,
}

/// Runs cases until the machines differ on one, and shrinks that case.
///
/// # Errors
/// Returns an error if a machine has exited.
pub fn compare(
    of: Comparison,
    limits: Limits,
    model: &mut dyn Peer,
    qemu: &mut dyn Peer,
) -> Result<Finding> {
    let (agreed, found) = search(of, limits, model, qemu)?;
    let mismatch = found
        .map(|(mut tree, mismatch)| smallest(&mut *tree, mismatch, model, qemu))
        .transpose()?;
    Ok(Finding { agreed, mismatch })
}

/// A case with a mismatch, which can be shrunk.
type Found = (Box<dyn ValueTree<Value = Vec<Step>>>, Mismatch);

/// Returns the number of cases that agree before the first case that does not.
fn search(
    of: Comparison,
    limits: Limits,
    model: &mut dyn Peer,
    qemu: &mut dyn Peer,
) -> Result<(u32, Option<Found>)> {
    let mut runner = runner(limits.seed);
    let cases = of.family.cases(of.world);
    let on_time = || limits.deadline.is_none_or(|deadline| Instant::now() < deadline);
    let mut agreed = 0;
    while agreed < limits.cases && on_time() {
        let tree = cases
            .new_tree(&mut runner)
            .map_err(|reason| anyhow::anyhow!("cannot generate a case: {reason}"))?;
        if let Some(mismatch) = play(&tree.current(), model, qemu)? {
            return Ok((agreed, Some((Box::new(tree), mismatch))));
        }
        agreed += 1;
    }
    Ok((agreed, None))
}

fn runner(seed: u64) -> TestRunner {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let random = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    TestRunner::new_with_rng(Config { failure_persistence: None, ..Config::default() }, random)
}

fn smallest(
    tree: &mut dyn ValueTree<Value = Vec<Step>>,
    found: Mismatch,
    model: &mut dyn Peer,
    qemu: &mut dyn Peer,
) -> Result<Mismatch> {
    let mut best = found;
    let mut changed = tree.simplify();
    for _ in 0..ATTEMPTS {
        if !changed {
            break;
        }
        changed = match play(&tree.current(), model, qemu)? {
            Some(mismatch) => {
                best = mismatch;
                tree.simplify()
            }
            None => tree.complicate(),
        };
    }
    Ok(best)
}
