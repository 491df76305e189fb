//! Prints the matrix for people: one table per world, followed by the distinct reasons.

use crate::print::wrapped;
use crate::table::Table;
use doorbell_matrix::{Cell, Endpoint, Layer, Outcome, Parent, World};

/// Renders the outcomes.
pub(super) fn of(tried: &[(Cell, Outcome)]) -> String {
    let mut text = String::new();
    let mut reasons = Reasons::default();
    for world in World::ALL {
        let endpoints = Endpoint::ALL.iter().map(|endpoint| endpoint.name());
        let names = [world.name(), "layer"].into_iter().chain(endpoints);
        let mut rows = Table::new(names.map(|name| name.replacen('-', "-\n", 1)));
        for (parent, layer) in stacks(tried, *world) {
            let here =
                |cell: &Cell| cell.world == *world && cell.parent == parent && cell.layer == layer;
            let outcomes = tried.iter().filter(|(cell, _)| here(cell));
            let outcomes = outcomes.map(|(_, outcome)| reasons.mark(outcome)).collect::<Vec<_>>();
            let names = [parent.name(), layer.name()].map(str::to_owned);
            rows.row(names.into_iter().chain(outcomes));
        }
        text.push_str(&rows.to_string());
        text.push_str("\n\n");
    }
    let lines = (1..)
        .zip(&reasons.0)
        .map(|(number, reason)| wrapped(&format!("[{number}] {reason}")) + "\n");
    text.extend(lines);
    text
}

/// Returns the parents and layers in the order in which they were tried.
fn stacks(tried: &[(Cell, Outcome)], world: World) -> Vec<(Parent, Layer)> {
    let here = tried.iter().filter(|(cell, _)| cell.world == world);
    let mut stacks: Vec<_> = here.map(|(cell, _)| (cell.parent, cell.layer)).collect();
    stacks.dedup();
    stacks
}

/// The distinct reasons, in order of their first occurrence.
#[derive(Default)]
struct Reasons(Vec<String>);

impl Reasons {
    /// Returns the text for an outcome's cell.
    fn mark(&mut self, outcome: &Outcome) -> String {
        match outcome {
            Outcome::Works => "works".to_owned(),
            Outcome::Refused(reason) => format!("no [{}]", self.number(reason)),
            Outcome::Broken(reason) => format!("BROKEN [{}]", self.number(reason)),
        }
    }

    fn number(&mut self, reason: &str) -> usize {
        if let Some(known) = self.0.iter().position(|known| known == reason) {
            return known + 1;
        }
        self.0.push(reason.to_owned());
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broken_cells_are_capitalized_and_reasons_print_once() {
        let cell = |endpoint| Cell {
            endpoint,
            parent: Parent::Its,
            layer: Layer::None,
            world: World::BareMetal,
        };
        let text = of(&[
            (cell(Endpoint::PciMsi), Outcome::Broken("lost".to_owned())),
            (cell(Endpoint::PciMultiMsi), Outcome::Refused("no".to_owned())),
            (cell(Endpoint::PciMsix), Outcome::Refused("no".to_owned())),
        ]);
        assert!(text.contains("BROKEN [1]  no [2]"), "{text}");
        assert!(text.ends_with("[1] lost\n[2] no\n"), "{text}");
    }
}
