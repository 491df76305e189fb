//! Trials of a step, as many at a time as there are CPUs.

use anyhow::Result;
pub(crate) use doorbell_harness::parallel::on_each_cpu;

use crate::step::Tally;

/// Work that counts its cases.
pub(crate) type Trial<'a> = Box<dyn Fn(&mut Tally) -> Result<()> + Sync + 'a>;

/// Runs trials on every CPU, and adds what they count in their order.
pub(crate) fn tallied(trials: &[Trial<'_>], tally: &mut Tally) {
    let counted = on_each_cpu(trials, |_, trial| {
        let mut tally = Tally::default();
        if let Err(error) = trial(&mut tally) {
            tally.fail(format!("{error:#}"));
        }
        tally
    });
    for counts in counted {
        tally.add(counts);
    }
}
