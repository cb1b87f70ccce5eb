//! A bar of one resource: used, reserved beyond that, free. Pure.

use ratatui::style::{Color, Style};
use ratatui::text::Span;

use super::snapshot::Gauge;

/// The three parts, told apart without colours too.
pub(super) const USED: char = '█';
/// Reserved and not used.
pub(super) const RESERVED: char = '▒';
/// Free.
pub(super) const FREE: char = '·';

/// Cells of a bar, which together are its width.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cells {
    /// Used of what is reserved.
    used: usize,
    /// Used beyond what is reserved.
    over: usize,
    /// Reserved and not used.
    reserved: usize,
    free: usize,
}

fn cells(gauge: Gauge, width: usize) -> Cells {
    // Whatever is there shows, in one cell at least; only what is full is shown full.
    let share = |amount: u64| match (amount, gauge.capacity) {
        (0, _) | (_, 0) => 0,
        (amount, capacity) if amount >= capacity => width,
        (amount, capacity) => {
            let nearest = (u128::from(amount) * width as u128 + u128::from(capacity) / 2) / u128::from(capacity);
            usize::try_from(nearest).unwrap_or(width).clamp(1.min(width), width.saturating_sub(1).max(1.min(width)))
        }
    };
    let (used, reserved) = (share(gauge.used), share(gauge.reserved));
    let within = if gauge.used > gauge.reserved { used.min(reserved) } else { used };
    Cells {
        used: within,
        over: used - within,
        reserved: reserved.saturating_sub(used),
        free: width - used.max(reserved),
    }
}

/// The bar, `width` columns wide.
pub(super) fn bar(gauge: Gauge, width: usize, colour: bool) -> Vec<Span<'static>> {
    let Cells { used, over, reserved, free } = cells(gauge, width);
    let part = |mark: char, count: usize, of: Color| {
        let style = if colour { Style::new().fg(of) } else { Style::new() };
        Span::styled(mark.to_string().repeat(count), style)
    };
    vec![
        part(USED, used, Color::Green),
        part(USED, over, Color::Red),
        part(RESERVED, reserved, Color::Yellow),
        part(FREE, free, Color::DarkGray),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(capacity: u64, reserved: u64, used: u64) -> String {
        bar(Gauge { capacity, reserved, used }, 8, false).iter().map(|span| span.content.as_ref()).collect()
    }

    #[test]
    fn used_reserved_and_free_follow_each_other() {
        assert_eq!(text(8, 4, 2), "██▒▒····");
        assert_eq!(text(8, 8, 8), "████████");
        assert_eq!(text(8, 0, 0), "········");
        assert_eq!(text(0, 0, 0), "········", "nothing is known");
        assert_eq!(text(8, 2, 4), "████····", "over its reservation");
        assert_eq!(text(8000, 4, 2), "█·······", "a little shows");
        assert_eq!(text(8000, 7999, 0), "▒▒▒▒▒▒▒·", "not quite full is not full");
    }

    proptest! {
        #[test]
        fn a_bar_is_as_wide_as_asked(capacity: u64, reserved: u64, used: u64, width in 0usize..200) {
            let bar = bar(Gauge { capacity, reserved, used }, width, true);
            prop_assert_eq!(bar.iter().map(|span| span.content.chars().count()).sum::<usize>(), width);
        }
    }
}
