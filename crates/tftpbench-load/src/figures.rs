//! Figures of a report by name. Plain data.

/// A figure of a report: whole numbers stay whole.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Figure {
    /// A count, or a time in nanoseconds.
    Whole(u64),
    /// A rate or a share.
    Real(f64),
    /// Whether something is so.
    Truth(bool),
}

pub(crate) type Figures = Vec<(&'static str, Option<Figure>)>;

pub(crate) fn whole(value: u64) -> Option<Figure> {
    Some(Figure::Whole(value))
}

pub(crate) fn share(part: f64, of: f64) -> Option<Figure> {
    (of > 0.0).then_some(Figure::Real(part / of))
}
