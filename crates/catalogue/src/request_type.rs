//! Request types: what a producer can ask for, and how it is split.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use forecastle_resources::{Bytes, Priority};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::command::PLACEHOLDERS;
use crate::error::Problem;
use crate::name::{self, TypeName, UnitName};
use crate::parameter::{self, Parameter, ParameterError, ParameterValue};
use crate::section::Section;
use crate::stage_order;
use crate::suggestion;

/// What a producer can ask for. Made only by reading a catalogue.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct RequestType {
    /// Its name.
    pub name: TypeName,
    /// For people.
    pub description: String,
    /// The fleet that runs it.
    pub fleet: String,
    /// What it reads.
    pub input: InputKind,
    /// The priority of a request that names none.
    pub priority: Priority,
    /// The deadline of a request that names none, from its submission.
    pub deadline: Option<Duration>,
    /// The most items that its input may have. No stage's bounds allow fewer.
    pub max_items: u32,
    /// What a producer may set, by name.
    pub parameters: BTreeMap<String, Parameter>,
    /// The stages, each after those it depends on, else as the file has them. Never empty.
    pub stages: Vec<Stage>,
}

/// What a request type reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InputKind {
    /// Every regular file below a directory.
    Directory,
    /// Files by path.
    Items,
    /// Nothing.
    None,
}

impl InputKind {
    /// `directory`, `items` or `none`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Directory => "directory",
            Self::Items => "items",
            Self::None => "none",
        }
    }
}

/// A stage: shards that start together, once all shards of the stages it depends on have succeeded.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stage {
    /// Its name, unique in its type.
    pub name: String,
    /// The units that it runs, each on its own. Never empty, none twice.
    pub units: Vec<UnitName>,
    /// What each unit runs over.
    pub over: Over,
    /// The names of earlier stages.
    pub depends_on: Vec<String>,
    /// How items are grouped. Only for a stage over items.
    pub shard: ShardBounds,
}

/// What the units of a stage run over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Over {
    /// Each unit over those items of the input that it accepts, in shards.
    Items,
    /// Each unit in one shard without items; it reads the results of earlier stages.
    Once,
}

/// How items are grouped into shards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShardBounds {
    /// The size that shards are meant to have; at least 1. Larger items make larger shards.
    pub target_bytes: Bytes,
    /// The most items of a shard; at least 1.
    pub max_items: u32,
    /// The most shards of a unit in the stage; at least 1.
    pub max_shards: u32,
}

impl Default for ShardBounds {
    /// 64 MiB, 500 items, 2000 shards: together a million items.
    fn default() -> Self {
        Self { target_bytes: Bytes::mib(64), max_items: 500, max_shards: 2000 }
    }
}

impl ShardBounds {
    /// The most items that fit.
    pub const fn capacity(&self) -> u64 {
        // Neither factor exceeds 32 bits.
        self.max_items as u64 * self.max_shards as u64
    }
}

impl RequestType {
    /// The most items of an input for which nothing is declared, if the stages can hold as many.
    pub const DEFAULT_MAX_ITEMS: u32 = 1_000_000;

    /// Checks parameters against their declarations and fills in defaults, or names everything that is wrong.
    /// A whole number may come as a double: protobuf's `Struct` has no others.
    pub fn check_parameters(
        &self,
        given: &Map<String, Value>,
    ) -> Result<BTreeMap<String, ParameterValue>, Vec<ParameterError>> {
        parameter::check(&self.parameters, given)
    }

    /// The stage of that name.
    pub fn stage(&self, name: &str) -> Option<&Stage> {
        self.stages.iter().find(|stage| stage.name == name)
    }

    /// True if some stage runs that unit.
    pub fn uses(&self, unit: &str) -> bool {
        self.stages.iter().any(|stage| stage.units.iter().any(|used| *used == unit))
    }

    /// Reads a type. `units` are the names of all declared units. Faults are noted; what could be
    /// read is returned, so that units can be checked against it.
    pub(crate) fn read(name: &str, mut section: Section<'_>, units: &BTreeSet<String>) -> Self {
        let description = section.take("description").unwrap_or_default();
        let fleet = section.take::<String>("fleet").unwrap_or_else(|| "default".to_owned());
        if !name::is_valid_fleet(&fleet) {
            section.invalid("fleet", format!("`{fleet}` is no fleet's name: use 1 to 64 of a-z, 0-9 and `-`"));
        }
        let input = section.required::<InputKind>("input");
        let priority = section.take("priority").unwrap_or_default();
        let deadline = section.positive_duration("deadline");
        let max_items = section.positive("max_items");
        let parameters = read_parameters(&mut section);
        let stages = read_stages(&mut section, units, input);
        let room = stages.iter().filter(|stage| stage.over == Over::Items).map(|stage| stage.shard.capacity()).min();
        if let (Some(items), Some(room)) = (max_items, room)
            && u64::from(items) > room
        {
            let why = format!("{items} items do not fit in shards whose max_items and max_shards allow {room}");
            section.invalid("max_items", why);
        }
        let room = room.and_then(|room| u32::try_from(room).ok()).unwrap_or(u32::MAX);
        let name = TypeName::new(name).unwrap_or_else(|error| {
            section.problems().push(section.path(), error);
            TypeName::unchecked(name)
        });
        section.finish();
        Self {
            name,
            description,
            fleet,
            input: input.unwrap_or(InputKind::None),
            priority,
            deadline,
            max_items: max_items.unwrap_or(Self::DEFAULT_MAX_ITEMS.min(room)),
            parameters,
            stages,
        }
    }
}

fn read_parameters(section: &mut Section<'_>) -> BTreeMap<String, Parameter> {
    let mut parameters = BTreeMap::new();
    for (name, section) in section.named_sections("parameters") {
        let fault = |why: &str| section.problems().push(section.path(), Problem::Invalid(why.to_owned()));
        if !name::is_valid_parameter(&name) {
            fault("is no parameter's name: use 1 to 64 of a-z, 0-9 and `_`, a letter first");
        } else if PLACEHOLDERS.contains(&name.as_str()) {
            fault("is the name of a placeholder; choose another");
        }
        parameters.insert(name, Parameter::read(section));
    }
    parameters
}

fn read_stages(section: &mut Section<'_>, units: &BTreeSet<String>, input: Option<InputKind>) -> Vec<Stage> {
    if !section.has("stages") {
        section.problem("stages", Problem::Missing);
    }
    let Some(sections) = section.sections("stages") else { return Vec::new() };
    if sections.is_empty() {
        section.invalid("stages", "must not be empty");
    }
    let paths: Vec<String> = sections.iter().map(|stage| stage.path().to_owned()).collect();
    let (mut stages, mut dependencies) = (Vec::new(), Vec::new());
    for section in sections {
        let (stage, depends_on) = read_stage(section, units, input);
        stages.push(stage);
        dependencies.push(depends_on);
    }
    let problems = section.problems();
    let mut places = BTreeMap::new();
    for (place, stage) in stages.iter().enumerate().filter(|(_, stage)| !stage.name.is_empty()) {
        if places.contains_key(&stage.name) {
            problems.push(format!("{}.name", paths[place]), Problem::Repeated { name: stage.name.clone() });
        } else {
            places.insert(stage.name.clone(), place);
        }
    }
    let mut depends_on = Vec::new();
    for (listed, path) in dependencies.iter().zip(&paths) {
        let mut waits_for = Vec::new();
        for (index, name) in listed {
            let problem = match places.get(name) {
                Some(place) if !waits_for.contains(place) => {
                    waits_for.push(*place);
                    continue;
                }
                Some(_) => Problem::Repeated { name: name.clone() },
                None => {
                    let near = suggestion::nearest(name, places.keys().map(String::as_str)).map(str::to_owned);
                    Problem::UnknownName { kind: "stage", name: name.clone(), suggestion: near }
                }
            };
            problems.push(format!("{path}.depends_on[{index}]"), problem);
        }
        depends_on.push(waits_for);
    }
    match stage_order::order(&depends_on) {
        Ok(order) => order.into_iter().map(|place| stages[place].clone()).collect(),
        Err(cycle) => {
            let names = cycle.into_iter().map(|place| stages[place].name.clone()).collect();
            section.problem("stages", Problem::Cycle(names));
            stages
        }
    }
}

/// Reads a stage, and the stages it depends on with their places in the list. Without a name it gets an empty one.
fn read_stage(
    mut section: Section<'_>,
    units: &BTreeSet<String>,
    input: Option<InputKind>,
) -> (Stage, Vec<(usize, String)>) {
    let name = section.required::<String>("name");
    if let Some(name) = &name
        && !name::is_valid(name)
    {
        section.invalid("name", "is no stage's name: use 1 to 64 of a-z, 0-9, `-` and `_`, a letter or digit first");
    }
    let mut used = Vec::new();
    if !section.has("units") {
        section.problem("units", Problem::Missing);
    } else if let Some(listed) = section.list::<String>("units") {
        if listed.is_empty() {
            section.invalid("units", "must not be empty");
        }
        for (index, unit) in listed {
            let path = format!("{}[{index}]", section.at("units"));
            match UnitName::new(unit.as_str()) {
                Ok(unit) if used.contains(&unit) => {
                    section.problems().push(path, Problem::Repeated { name: unit.to_string() });
                }
                Ok(unit) if units.contains(unit.as_str()) => used.push(unit),
                _ => {
                    let near = suggestion::nearest(&unit, units.iter().map(String::as_str)).map(str::to_owned);
                    section.problems().push(path, Problem::UnknownName { kind: "unit", name: unit, suggestion: near });
                }
            }
        }
    }
    let over = section.required::<Over>("over");
    if over == Some(Over::Items) && input == Some(InputKind::None) {
        section.invalid("over", "there are no items: the type's input is \"none\"");
    }
    if over == Some(Over::Once) && section.has("shard") {
        section.invalid("shard", "only a stage over items can have it");
    }
    let listed = section.list::<String>("depends_on").unwrap_or_default();
    let shard = section.section("shard").map(read_bounds).unwrap_or_default();
    section.finish();
    let depends_on = listed.iter().map(|(_, name)| name.clone()).collect();
    let name = name.unwrap_or_default();
    (Stage { name, units: used, over: over.unwrap_or(Over::Items), depends_on, shard }, listed)
}

fn read_bounds(mut section: Section<'_>) -> ShardBounds {
    let default = ShardBounds::default();
    let target_bytes = section.take("target_bytes").unwrap_or(default.target_bytes);
    if target_bytes == Bytes::ZERO {
        section.invalid("target_bytes", "must be at least 1");
    }
    let bounds = ShardBounds {
        target_bytes,
        max_items: section.positive("max_items").unwrap_or(default.max_items),
        max_shards: section.positive("max_shards").unwrap_or(default.max_shards),
    };
    section.finish();
    bounds
}
