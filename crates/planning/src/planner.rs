//! The planner.

use std::collections::BTreeMap;

use forecastle_catalogue::{Accepts, InputKind, Over, RequestType, Stage, Unit, UnitName};

use crate::balance::balance;
use crate::error::PlanError;
use crate::plan::{Item, Plan, PlannedShard, PlannedStage};

/// What a plan is made of.
#[derive(Debug, Clone, Copy)]
pub struct PlanInput<'a> {
    /// The request type.
    pub request_type: &'a RequestType,
    /// The units of the same catalogue.
    pub units: &'a BTreeMap<UnitName, Unit>,
    /// The input, in any order.
    pub items: &'a [Item],
}

/// Plans a request. The same input, in whatever order its items come, makes the same plan.
pub fn plan(input: &PlanInput<'_>) -> Result<Plan, PlanError> {
    let items = checked_items(input)?;
    let declared = &input.request_type.stages;
    let mut stages: Vec<PlannedStage> = Vec::with_capacity(declared.len());
    for stage in declared {
        let depends_on = stage.depends_on.iter().map(|dependency| {
            let place = stages.iter().position(|earlier| earlier.name == *dependency);
            place
                .and_then(|place| u32::try_from(place).ok())
                .ok_or_else(|| PlanError::UnknownStage { stage: stage.name.clone(), dependency: dependency.clone() })
        });
        let depends_on = depends_on.collect::<Result<_, _>>()?;
        let shards = shards_of(stage, input.units, &items)?;
        stages.push(PlannedStage { name: stage.name.clone(), depends_on, shards });
    }
    let plan = Plan { stages };
    if plan.shard_count() == 0 {
        return Err(PlanError::NothingToDo { why: why_nothing(input) });
    }
    Ok(plan)
}

/// The items by name, if there may be so many and no name is there twice.
fn checked_items<'a>(input: &PlanInput<'a>) -> Result<Vec<&'a Item>, PlanError> {
    let (request_type, count) = (input.request_type, input.items.len());
    if request_type.input == InputKind::None && count > 0 {
        return Err(PlanError::UnexpectedItems { request_type: request_type.name.to_string(), items: count });
    }
    if count as u128 > u128::from(request_type.max_items) {
        return Err(PlanError::TooManyItems {
            request_type: request_type.name.to_string(),
            items: count,
            limit: request_type.max_items,
        });
    }
    let mut items: Vec<&Item> = input.items.iter().collect();
    items.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    let twice = items.windows(2).filter(|pair| pair[0].name == pair[1].name);
    let mut names: Vec<String> = twice.map(|pair| pair[0].name.clone()).collect();
    names.dedup();
    if names.is_empty() { Ok(items) } else { Err(PlanError::DuplicateNames { names }) }
}

/// The shards of a stage: the largest first; among equals by their first item's name, then as the units are declared.
fn shards_of(stage: &Stage, units: &BTreeMap<UnitName, Unit>, items: &[&Item]) -> Result<Vec<PlannedShard>, PlanError> {
    let mut shards = Vec::new();
    for name in &stage.units {
        let unit = units
            .get(name)
            .ok_or_else(|| PlanError::UnknownUnit { stage: stage.name.clone(), unit: name.to_string() })?;
        match stage.over {
            Over::Once => shards.push(PlannedShard { unit: name.to_string(), items: Vec::new(), bytes: 0 }),
            Over::Items => {
                let accepted: Vec<&Item> = items.iter().copied().filter(|item| unit.accepts.takes(item.text)).collect();
                let balanced = balance(&accepted, &stage.shard).ok_or_else(|| PlanError::TooManyForStage {
                    stage: stage.name.clone(),
                    unit: name.to_string(),
                    items: accepted.len(),
                    limit: stage.shard.capacity(),
                })?;
                shards.extend(balanced.into_iter().map(|items| PlannedShard {
                    unit: name.to_string(),
                    bytes: items.iter().fold(0, |sum, item| sum.saturating_add(item.bytes)),
                    items: items.into_iter().cloned().collect(),
                }));
            }
        }
    }
    // A stable sort: what is equal stays in the order of the units. A unit's own shards differ in their first name.
    shards.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| first_name(a).cmp(&first_name(b))));
    Ok(shards)
}

fn first_name(shard: &PlannedShard) -> Option<&str> {
    shard.items.first().map(|item| item.name.as_str())
}

fn why_nothing(input: &PlanInput<'_>) -> String {
    let (request_type, count) = (input.request_type, input.items.len());
    if count == 0 {
        return match request_type.input {
            InputKind::Directory => format!("the directory has no files, and `{}` needs some", request_type.name),
            _ => format!("the input has no items, and `{}` needs some", request_type.name),
        };
    }
    let text_only =
        input.units.values().any(|unit| request_type.uses(unit.name.as_str()) && unit.accepts == Accepts::Text);
    let reason = if text_only { ": none looks like text" } else { "" };
    format!("no unit of `{}` accepts any of the {count} items{reason}", request_type.name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use forecastle_catalogue::Catalogue;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    const CATALOGUE: &str = r#"
        version = 1
        [types.archive]
        input = "directory"
        max_items = 100000
        [[types.archive.stages]]
        name = "manifest"
        units = ["manifest", "report"]
        over = "once"
        depends_on = ["work", "words"]
        [[types.archive.stages]]
        name = "work"
        units = ["checksum", "compress"]
        over = "items"
        shard = { target_bytes = "16MiB", max_items = 64, max_shards = 2000 }
        [[types.archive.stages]]
        name = "words"
        units = ["index"]
        over = "items"
        shard = { target_bytes = "1KiB", max_items = 1000, max_shards = 500 }

        [types.words]
        input = "items"
        max_items = 3
        [[types.words.stages]]
        name = "words"
        units = ["index"]
        over = "items"

        [types.report]
        input = "none"
        [[types.report.stages]]
        name = "report"
        units = ["report"]
        over = "once"

        [units.checksum]
        task = "checksum"
        [units.compress]
        task = "compress"
        [units.index]
        task = "index"
        accepts = "text"
        [units.manifest]
        task = "manifest"
        [units.report]
        task = "report"
    "#;

    fn catalogue() -> Catalogue {
        Catalogue::parse(CATALOGUE).unwrap_or_else(|errors| panic!("{errors}"))
    }

    fn planned(catalogue: &Catalogue, request_type: &str, items: &[Item]) -> Result<Plan, PlanError> {
        let request_type = catalogue.request_type(request_type).unwrap();
        plan(&PlanInput { request_type, units: catalogue.units(), items })
    }

    fn item(name: &str, bytes: u64, text: bool) -> Item {
        Item { path: format!("/in/{name}"), name: name.to_owned(), bytes, text }
    }

    fn names(shard: &PlannedShard) -> Vec<&str> {
        shard.items.iter().map(|item| item.name.as_str()).collect()
    }

    #[test]
    fn items_times_units_then_a_stage_that_depends_on_all() {
        let items = [item("b.txt", 100, true), item("a.bin", 20 << 20, false), item("c.txt", 10 << 20, true)];
        let plan = planned(&catalogue(), "archive", &items).unwrap();
        let stages: Vec<_> = plan.stages.iter().map(|stage| (stage.name.as_str(), stage.depends_on.clone())).collect();
        assert_eq!(stages, [("work", vec![]), ("words", vec![]), ("manifest", vec![0, 1])]);

        let work: Vec<_> = plan.stages[0].shards.iter().map(|shard| (shard.unit.as_str(), names(shard))).collect();
        let expected = [
            ("checksum", vec!["a.bin"]),
            ("compress", vec!["a.bin"]),
            ("checksum", vec!["b.txt", "c.txt"]),
            ("compress", vec!["b.txt", "c.txt"]),
        ];
        assert_eq!(work, expected, "the largest first, units side by side");
        let words: Vec<_> = plan.stages[1].shards.iter().map(names).collect();
        assert_eq!(words, [["c.txt"], ["b.txt"]], "only what looks like text");
        let once: Vec<_> = plan.stages[2].shards.iter().map(|shard| (shard.unit.as_str(), shard.bytes)).collect();
        assert_eq!(once, [("manifest", 0), ("report", 0)], "each unit once, as declared");
        assert!(plan.stages[2].shards.iter().all(|shard| shard.items.is_empty()));
        assert_eq!(plan.shard_count(), 8);
    }

    #[test]
    fn a_stage_without_accepted_items_has_no_shards_and_the_others_stay() {
        let plan = planned(&catalogue(), "archive", &[item("a", 1, false)]).unwrap();
        let counts: Vec<_> = plan.stages.iter().map(|stage| stage.shards.len()).collect();
        assert_eq!(counts, [2, 0, 2]);
        let empty = planned(&catalogue(), "archive", &[]).unwrap();
        let counts: Vec<_> = empty.stages.iter().map(|stage| stage.shards.len()).collect();
        assert_eq!(counts, [0, 0, 2], "a manifest of nothing is a manifest");
    }

    #[test]
    fn a_plan_without_shards_is_an_error_that_says_why() {
        let error = |request_type, items: &[Item]| planned(&catalogue(), request_type, items).unwrap_err().to_string();
        assert_eq!(error("words", &[]), "there is nothing to do: the input has no items, and `words` needs some");
        assert_eq!(
            error("words", &[item("a", 1, false), item("b", 1, false)]),
            "there is nothing to do: no unit of `words` accepts any of the 2 items: none looks like text"
        );
        let directory = CATALOGUE.replace("input = \"items\"", "input = \"directory\"");
        let catalogue = Catalogue::parse(&directory).unwrap();
        assert_eq!(
            planned(&catalogue, "words", &[]).unwrap_err().to_string(),
            "there is nothing to do: the directory has no files, and `words` needs some"
        );
    }

    #[test]
    fn a_type_without_input_runs_its_units_and_takes_no_items() {
        let plan = planned(&catalogue(), "report", &[]).unwrap();
        assert_eq!(plan.shard_count(), 1);
        let error = planned(&catalogue(), "report", &[item("a", 1, true)]).unwrap_err();
        assert_eq!(error.to_string(), "`report` takes no input; items given: 1");
    }

    #[test]
    fn duplicate_names_are_named_once_each() {
        let items: Vec<_> = ["b", "a", "b", "c", "a", "b"].iter().map(|name| item(name, 1, true)).collect();
        let error = planned(&catalogue(), "archive", &items).unwrap_err();
        assert_eq!(error, PlanError::DuplicateNames { names: vec!["a".to_owned(), "b".to_owned()] });
    }

    #[test]
    fn more_items_than_the_type_takes_are_refused() {
        let items: Vec<_> = (0..4).map(|n| item(&n.to_string(), 1, true)).collect();
        let error = planned(&catalogue(), "words", &items).unwrap_err();
        assert_eq!(error.to_string(), "the input has 4 items; `words` takes at most 3");
    }

    #[test]
    fn a_type_that_does_not_belong_to_the_units_is_refused() {
        let catalogue = catalogue();
        let mut request_type = catalogue.request_type("archive").unwrap().clone();
        let items = [item("a", 1, true), item("b", 1, true)];
        let refused = |request_type: &RequestType, units: &BTreeMap<UnitName, Unit>| {
            plan(&PlanInput { request_type, units, items: &items }).unwrap_err()
        };

        let error = refused(&request_type, &BTreeMap::new());
        assert_eq!(error, PlanError::UnknownUnit { stage: "work".to_owned(), unit: "checksum".to_owned() });

        request_type.stages[0].shard.max_items = 1;
        request_type.stages[0].shard.max_shards = 1;
        let error = refused(&request_type, catalogue.units());
        assert_eq!(error.to_string(), "stage `work` has 2 items for `checksum`; its shards hold at most 1 in all");

        request_type.stages.reverse();
        let error = refused(&request_type, catalogue.units());
        let (stage, dependency) = ("manifest".to_owned(), "work".to_owned());
        assert_eq!(error, PlanError::UnknownStage { stage, dependency });
    }

    #[test]
    fn sums_saturate() {
        let items = [item("a", u64::MAX, false), item("b", u64::MAX, false), item("c", u64::MAX, false)];
        let one = CATALOGUE.replace("max_items = 64, max_shards = 2000", "max_items = 100000, max_shards = 1");
        let plan = planned(&Catalogue::parse(&one).unwrap(), "archive", &items).unwrap();
        assert_eq!(plan.stages[0].shards[0].bytes, u64::MAX);
        assert_eq!(plan.stages[0].shards[0].items.len(), 3);
    }

    #[test]
    fn a_hundred_thousand_items_are_planned() {
        // A plain multiplicative sequence: sizes of all magnitudes, the same every time.
        let mut state = 1u64;
        let items: Vec<_> = (0..100_000)
            .map(|n| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                item(&format!("folder-{}/file-{n}", n % 97), state >> (40 + n % 20), n % 3 == 0)
            })
            .collect();
        let catalogue = catalogue();
        let plan = planned(&catalogue, "archive", &items).unwrap();
        assert!(plan.stages[0].shards.len() >= 2 * 100_000 / 64);
    }

    fn inputs() -> impl Strategy<Value = Vec<Item>> {
        let sizes = prop_oneof![Just(0u64), 1u64..5000, 1u64..1 << 26, any::<u64>()];
        proptest::collection::btree_map("[a-c]{1,3}(/[a-c]{1,3})?", (sizes, any::<bool>()), 0..80)
            .prop_map(|items| items.into_iter().map(|(name, (bytes, text))| item(&name, bytes, text)).collect())
    }

    proptest! {
        #[test]
        fn every_accepted_item_is_in_exactly_one_shard_of_each_unit(items in inputs()) {
            let catalogue = catalogue();
            let plan = planned(&catalogue, "archive", &items).unwrap();
            let archive = catalogue.request_type("archive").unwrap();
            for (planned, declared) in plan.stages.iter().zip(&archive.stages) {
                prop_assert!(planned.depends_on.iter().all(|earlier| plan.stages[*earlier as usize].name != planned.name));
                prop_assert!(planned.shards.is_sorted_by(|a, b| a.bytes >= b.bytes));
                for unit in declared.units.iter().filter(|_| declared.over == Over::Items) {
                    let shards: Vec<_> = planned.shards.iter().filter(|shard| *unit == shard.unit.as_str()).collect();
                    let mut held: Vec<&Item> = shards.iter().flat_map(|shard| &shard.items).collect();
                    held.sort();
                    let accepts = catalogue.unit(unit.as_str()).unwrap().accepts;
                    let mut accepted: Vec<&Item> = items.iter().filter(|item| accepts.takes(item.text)).collect();
                    accepted.sort();
                    prop_assert_eq!(held, accepted);
                    prop_assert!(shards.len() <= declared.shard.max_shards as usize);
                    for shard in shards {
                        prop_assert!((1..=declared.shard.max_items as usize).contains(&shard.items.len()));
                        let bytes: u128 = shard.items.iter().map(|item| u128::from(item.bytes)).sum();
                        prop_assert_eq!(u128::from(shard.bytes), bytes.min(u64::MAX.into()));
                        prop_assert!(shard.items.is_sorted_by(|a, b| a.name < b.name));
                    }
                }
            }
        }

        #[test]
        fn the_order_of_the_input_does_not_matter(
            (items, shuffled) in inputs().prop_flat_map(|items| (Just(items.clone()), Just(items).prop_shuffle())),
        ) {
            let catalogue = catalogue();
            let plan = planned(&catalogue, "archive", &items);
            prop_assert_eq!(&plan, &planned(&catalogue, "archive", &shuffled));
            prop_assert_eq!(plan, planned(&catalogue, "archive", &items), "planning twice changes nothing");
        }

        #[test]
        fn duplicates_are_always_found(items in inputs(), picks in proptest::collection::vec(any::<prop::sample::Index>(), 1..4)) {
            prop_assume!(!items.is_empty());
            let mut doubled = items.clone();
            let twice: BTreeSet<String> = picks.iter().map(|pick| pick.get(&items).name.clone()).collect();
            doubled.extend(items.iter().filter(|item| twice.contains(&item.name)).cloned());
            let error = planned(&catalogue(), "archive", &doubled).unwrap_err();
            prop_assert_eq!(error, PlanError::DuplicateNames { names: twice.into_iter().collect() });
        }
    }
}
