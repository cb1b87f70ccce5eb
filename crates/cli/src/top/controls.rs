//! What keys have set: the order, the filter, the pause, and what is scrolled to. Pure.

use std::cmp::{Ordering, Reverse};
use std::time::Duration;

use clap::ValueEnum;
use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::snapshot::{RunRow, Snapshot, WorkerRow};
use crate::fleet::State;

/// The order of runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Order {
    /// The oldest first.
    Age,
    /// Those that hold most memory first.
    Memory,
    /// Those that hold most CPU first.
    Cpu,
    /// Those that waste most first.
    Waste,
}

impl Order {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Age => "age",
            Self::Memory => "memory",
            Self::Cpu => "cpu",
            Self::Waste => "waste",
        }
    }

    fn next(self) -> Self {
        match self {
            Self::Age => Self::Memory,
            Self::Memory => Self::Cpu,
            Self::Cpu => Self::Waste,
            Self::Waste => Self::Age,
        }
    }

    fn compare(self, a: &RunRow, b: &RunRow) -> Ordering {
        let by = match self {
            Self::Age => b.age_ms.cmp(&a.age_ms),
            Self::Memory => b.gauges.memory.reserved.cmp(&a.gauges.memory.reserved),
            Self::Cpu => b.gauges.cpu.reserved.cmp(&a.gauges.cpu.reserved),
            // Where it is unknown, last.
            Self::Waste => b.waste().unwrap_or(-1.0).total_cmp(&a.waste().unwrap_or(-1.0)),
        };
        // The same order every time, or rows would jump.
        by.then_with(|| Reverse(a.age_ms).cmp(&Reverse(b.age_ms)))
            .then_with(|| (&a.worker, &a.run).cmp(&(&b.worker, &b.run)))
    }
}

/// The table that arrows scroll.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Focus {
    #[default]
    Runs,
    Workers,
}

/// The intervals that `+` and `-` choose from.
const INTERVALS_MS: [u64; 9] = [100, 200, 500, 1000, 2000, 5000, 10_000, 30_000, 60_000];

/// What was set.
#[derive(Debug, Clone)]
pub(super) struct Controls {
    pub(super) interval: Duration,
    pub(super) order: Order,
    pub(super) filter: String,
    /// Keys go to the filter.
    pub(super) editing: bool,
    pub(super) paused: bool,
    pub(super) focus: Focus,
    /// Rows scrolled past, of the runs and of the workers.
    scrolled: [usize; 2],
}

/// What a key asks of whoever owns the terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reaction {
    /// Draw again.
    Redraw,
    /// Look now.
    Refresh,
    /// Leave.
    Quit,
    /// Leave, as after an interruption.
    Interrupt,
}

impl Controls {
    pub(super) fn new(interval: Duration, order: Order, filter: String) -> Self {
        let (editing, paused, focus, scrolled) = (false, false, Focus::default(), [0; 2]);
        Self { interval, order, filter, editing, paused, focus, scrolled }
    }

    /// Takes a key. `page` is the number of rows that PgUp and PgDn scroll, `rows` how many the focused table has.
    pub(super) fn press(&mut self, key: KeyEvent, page: usize, rows: usize) -> Reaction {
        if key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL) {
            return Reaction::Interrupt;
        }
        if self.editing {
            match key.code {
                KeyCode::Enter => self.editing = false,
                KeyCode::Esc => {
                    self.editing = false;
                    self.filter.clear();
                }
                KeyCode::Backspace => drop(self.filter.pop()),
                KeyCode::Char(c) => self.filter.push(c),
                _ => {}
            }
            self.scrolled = [0; 2];
            return Reaction::Redraw;
        }
        let end = rows.saturating_sub(1);
        let scrolled = &mut self.scrolled[self.focus as usize];
        match key.code {
            KeyCode::Char('q') => return Reaction::Quit,
            KeyCode::Esc if self.filter.is_empty() => return Reaction::Quit,
            KeyCode::Esc => self.filter.clear(),
            KeyCode::Char('s') => self.order = self.order.next(),
            KeyCode::Char('/') => self.editing = true,
            KeyCode::Char('p' | ' ') => {
                self.paused = !self.paused;
                return if self.paused { Reaction::Redraw } else { Reaction::Refresh };
            }
            KeyCode::Char('r') => return Reaction::Refresh,
            KeyCode::Char('+' | '=') => self.interval = self.neighbour(|known, now| known > now, false),
            KeyCode::Char('-') => self.interval = self.neighbour(|known, now| known < now, true),
            KeyCode::Tab => {
                self.focus = if self.focus == Focus::Runs { Focus::Workers } else { Focus::Runs };
            }
            KeyCode::Down | KeyCode::Char('j') => *scrolled = (*scrolled + 1).min(end),
            KeyCode::Up | KeyCode::Char('k') => *scrolled = scrolled.saturating_sub(1),
            KeyCode::PageDown => *scrolled = (*scrolled + page.max(1)).min(end),
            KeyCode::PageUp => *scrolled = scrolled.saturating_sub(page.max(1)),
            KeyCode::Home => *scrolled = 0,
            KeyCode::End => *scrolled = rows.saturating_sub(page.max(1)),
            _ => {}
        }
        Reaction::Redraw
    }

    /// The next interval up or down, or the one there is.
    fn neighbour(&self, beyond: fn(u64, u64) -> bool, last: bool) -> Duration {
        let now = u64::try_from(self.interval.as_millis()).unwrap_or(u64::MAX);
        let mut known = INTERVALS_MS.into_iter().filter(|known| beyond(*known, now));
        let found = if last { known.next_back() } else { known.next() };
        found.map_or(self.interval, Duration::from_millis)
    }

    /// Rows of a table that are above its window of `height` rows: never so many that it is empty.
    pub(super) fn offset(&self, focus: Focus, rows: usize, height: usize) -> usize {
        self.scrolled[focus as usize].min(rows.saturating_sub(height.min(rows).max(1)))
    }

    /// The runs to show, in order.
    pub(super) fn runs<'a>(&self, snapshot: &'a Snapshot) -> Vec<&'a RunRow> {
        let mut runs: Vec<_> = snapshot.runs.iter().filter(|run| self.shows_run(run)).collect();
        runs.sort_by(|a, b| self.order.compare(a, b));
        runs
    }

    /// The workers to show: those that match, and those that have a run that does.
    pub(super) fn workers<'a>(&self, snapshot: &'a Snapshot) -> Vec<&'a WorkerRow> {
        let of_shown_runs: Vec<_> =
            snapshot.runs.iter().filter(|run| self.shows_run(run)).map(|run| &run.worker).collect();
        let matches = |worker: &WorkerRow| {
            let state = state_name(worker.state);
            let texts = [&*worker.name, &worker.fleet, &worker.host, &worker.version, state];
            self.matches(texts) || of_shown_runs.contains(&&worker.name)
        };
        snapshot.workers.iter().filter(|worker| self.filter.is_empty() || matches(worker)).collect()
    }

    fn shows_run(&self, run: &RunRow) -> bool {
        self.matches([&*run.shard, &run.run, &run.tenant, &run.request_type, &run.unit, &run.priority, &run.worker])
    }

    fn matches<'a>(&self, texts: impl IntoIterator<Item = &'a str>) -> bool {
        let wanted = self.filter.to_lowercase();
        wanted.is_empty() || texts.into_iter().any(|text| text.to_lowercase().contains(&wanted))
    }
}

/// A worker's state for people.
pub(super) fn state_name(state: State) -> &'static str {
    match state {
        State::Live => "live",
        State::Draining => "draining",
        State::Leaving => "leaving",
        State::Silent => "silent",
    }
}

#[cfg(test)]
mod tests {
    use super::super::snapshot::sample;
    use super::*;

    fn controls() -> Controls {
        Controls::new(Duration::from_secs(1), Order::Age, String::new())
    }

    fn press(controls: &mut Controls, code: KeyCode) -> Reaction {
        controls.press(KeyEvent::new(code, KeyModifiers::NONE), 2, 4)
    }

    fn shown(controls: &Controls) -> Vec<u64> {
        let snapshot = Snapshot::of(&sample::fleet());
        controls.runs(&snapshot).iter().map(|run| run.age_ms / 10_000).collect()
    }

    #[test]
    fn the_order_is_chosen_by_a_key() {
        let mut controls = controls();
        assert_eq!(shown(&controls), [4, 3, 2, 1]);
        press(&mut controls, KeyCode::Char('s'));
        assert_eq!((controls.order, shown(&controls)), (Order::Memory, vec![2, 1, 3, 4]));
        press(&mut controls, KeyCode::Char('s'));
        assert_eq!((controls.order, shown(&controls)), (Order::Cpu, vec![2, 1, 3, 4]));
        press(&mut controls, KeyCode::Char('s'));
        assert_eq!((controls.order, shown(&controls)), (Order::Waste, vec![2, 3, 1, 4]));
        press(&mut controls, KeyCode::Char('s'));
        assert_eq!(controls.order, Order::Age);
    }

    #[test]
    fn the_filter_takes_letters_until_it_is_kept_or_cleared() {
        let mut controls = controls();
        press(&mut controls, KeyCode::Char('/'));
        for c in "BETA".chars() {
            assert_eq!(press(&mut controls, KeyCode::Char(c)), Reaction::Redraw);
        }
        press(&mut controls, KeyCode::Enter);
        assert_eq!((&*controls.filter, controls.editing, shown(&controls)), ("BETA", false, vec![4, 3]));
        let snapshot = Snapshot::of(&sample::fleet());
        assert_eq!(controls.workers(&snapshot).len(), 1);
        assert_eq!(press(&mut controls, KeyCode::Esc), Reaction::Redraw, "first it clears the filter");
        assert_eq!(shown(&controls).len(), 4);
        assert_eq!(press(&mut controls, KeyCode::Esc), Reaction::Quit);
    }

    #[test]
    fn a_worker_is_shown_with_the_runs_that_match() {
        let controls = Controls::new(Duration::from_secs(1), Order::Age, "archive".to_owned());
        let mut fleet = sample::fleet();
        fleet.workers.push(sample::worker("idle", Vec::new()));
        let snapshot = Snapshot::of(&fleet);
        let names: Vec<_> = controls.workers(&snapshot).iter().map(|worker| worker.name.clone()).collect();
        assert_eq!(names, ["alpha", "beta"]);
    }

    #[test]
    fn q_quits_but_not_while_the_filter_is_written_and_ctrl_c_always_interrupts() {
        let mut controls = controls();
        assert_eq!(press(&mut controls, KeyCode::Char('q')), Reaction::Quit);
        press(&mut controls, KeyCode::Char('/'));
        assert_eq!(press(&mut controls, KeyCode::Char('q')), Reaction::Redraw);
        assert_eq!(controls.filter, "q");
        let interrupt = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        assert_eq!(controls.press(interrupt, 1, 1), Reaction::Interrupt);
    }

    #[test]
    fn pausing_stops_looking_and_going_on_looks_at_once() {
        let mut controls = controls();
        assert_eq!((press(&mut controls, KeyCode::Char('p')), controls.paused), (Reaction::Redraw, true));
        assert_eq!((press(&mut controls, KeyCode::Char('p')), controls.paused), (Reaction::Refresh, false));
    }

    #[test]
    fn the_interval_goes_up_and_down_and_stops_at_the_ends() {
        let mut controls = controls();
        press(&mut controls, KeyCode::Char('+'));
        assert_eq!(controls.interval, Duration::from_secs(2));
        for _ in 0..20 {
            press(&mut controls, KeyCode::Char('-'));
        }
        assert_eq!(controls.interval, Duration::from_millis(100));
        for _ in 0..20 {
            press(&mut controls, KeyCode::Char('+'));
        }
        assert_eq!(controls.interval, Duration::from_mins(1));
    }

    #[test]
    fn scrolling_stays_within_the_table_whatever_its_length_becomes() {
        let mut controls = controls();
        for _ in 0..9 {
            press(&mut controls, KeyCode::Down);
        }
        assert_eq!(controls.offset(Focus::Runs, 4, 2), 2, "the last page is full");
        assert_eq!(controls.offset(Focus::Runs, 1, 2), 0, "rows have gone");
        assert_eq!(controls.offset(Focus::Runs, 0, 0), 0);
        assert_eq!(controls.offset(Focus::Workers, 4, 2), 0, "the other table stays");
        press(&mut controls, KeyCode::Home);
        press(&mut controls, KeyCode::Tab);
        press(&mut controls, KeyCode::End);
        assert_eq!((controls.offset(Focus::Runs, 4, 2), controls.offset(Focus::Workers, 4, 2)), (0, 2));
    }
}
