//! Comparisons of the subject's own fields with constants or the time, which is what conditions
//! are mostly made of, become one step each that needs no other memory.

use crate::domain::Value;

use super::node::{Node, Order, Slope};

impl Node {
    /// The same condition with such comparisons as single steps. Last of all: nothing that is asked
    /// of a tree afterwards looks into them.
    pub(super) fn fused(self) -> Self {
        let all = |parts: Box<[Self]>| parts.into_iter().map(Self::fused).collect();
        match self {
            Self::And(parts) => Self::And(all(parts)),
            Self::Or(parts) => Self::Or(all(parts)),
            Self::Not { of, at } => Self::Not {
                of: Box::new(of.fused()),
                at,
            },
            Self::Compare {
                order,
                sides,
                slope,
                weight,
                at,
            } => match *sides {
                [Self::Own { place, at: own }, other] if still(&other) => Self::Test {
                    order,
                    place,
                    with: constant(other),
                    slope,
                    own,
                    at,
                },
                [other, Self::Own { place, at: own }] if still(&other) => Self::Test {
                    order: mirrored(order),
                    place,
                    with: constant(other),
                    slope: opposite(slope),
                    own,
                    at,
                },
                sides => Self::Compare {
                    order,
                    sides: Box::new(sides),
                    slope,
                    weight,
                    at,
                },
            },
            other => other,
        }
    }
}

/// Whether a step is there without any work that could fail; comparing lists and maps is work.
fn still(node: &Node) -> bool {
    match node {
        Node::Now => true,
        Node::Const(value) => !matches!(value, Value::List(_) | Value::Map(_) | Value::Record(_)),
        _ => false,
    }
}

fn constant(node: Node) -> Option<Value> {
    match node {
        Node::Const(value) => Some(value),
        _ => None,
    }
}

fn mirrored(order: Order) -> Order {
    match order {
        Order::Less => Order::Greater,
        Order::LessEqual => Order::GreaterEqual,
        Order::Greater => Order::Less,
        Order::GreaterEqual => Order::LessEqual,
        Order::Equal | Order::NotEqual => order,
    }
}

fn opposite(slope: Slope) -> Slope {
    match slope {
        Slope::Rising => Slope::Falling,
        Slope::Falling => Slope::Rising,
        Slope::Still | Slope::Wild => slope,
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        domain::{Span, Value},
        engine::{
            catalogue::SUBJECT,
            condition::{Frame, Names, Roots, compile},
        },
        testing::noon,
    };

    #[test]
    fn whichever_side_the_field_is_on_the_answer_and_its_edge_are_the_same() {
        let due = noon() + Span::from_hours(1);
        let mut fields = vec![None; SUBJECT.fields.len()];
        let place = SUBJECT.place("metadata_update_time").unwrap();
        fields[place] = Some(Value::Time(due));
        let ask = |source: &str| {
            let params = Value::map([]);
            let condition =
                compile(source, Roots::RUNTIME, &params, &mut Names::default()).unwrap();
            let mut frame = Frame::new(noon());
            frame.subject = Some(&fields);
            (condition.holds(&frame).unwrap(), frame.edge())
        };
        for (one, other, holds) in [
            ("now < FIELD", "FIELD > now", true),
            ("now <= FIELD", "FIELD >= now", true),
            ("now > FIELD", "FIELD < now", false),
            ("now >= FIELD", "FIELD <= now", false),
            ("now == FIELD", "FIELD == now", false),
        ] {
            let field = |source: &str| source.replace("FIELD", "subject.metadata_update_time");
            assert_eq!(ask(&field(one)), (holds, due), "{one}");
            assert_eq!(ask(&field(other)), (holds, due), "{other}");
        }
    }
}
