//! How plans stand in files: nodes with a count, and steps whose fault is a key beside `at` and `lasts`.

use std::fmt;

use serde::Deserialize;
use serde::de::value::StringDeserializer;
use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error, IgnoredAny, IntoDeserializer, MapAccess, VariantAccess, Visitor,
};
use serde::forward_to_deserialize_any;

use super::plan::{Fault, Node, Step, Who};
use super::span::Span;

/// Nodes that one line may stand for: as many as a simulation can have at all, and a slip of the pen has more.
const MOST: usize = 5_000;

/// A line that stands for one node or several.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
struct Line {
    name: String,
    count: usize,
    control_plane: bool,
    zone: usize,
    dual_stack: bool,
    later: bool,
    config: String,
}

impl Default for Line {
    fn default() -> Line {
        let Node { name, control_plane, zone, dual_stack, later, config } = Node::default();
        Line { name, count: 1, control_plane, zone, dual_stack, later, config }
    }
}

/// Reads a list of nodes.
pub(super) fn nodes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Node>, D::Error> {
    let lines = Vec::<Line>::deserialize(deserializer)?;
    let all: usize = lines.iter().map(|line| line.count).fold(0, usize::saturating_add);
    if all > MOST {
        return Err(D::Error::custom(format!("{all} nodes are more than {MOST}")));
    }
    let nodes = lines.into_iter().flat_map(|line| {
        let Line { name, count, control_plane, zone, dual_stack, later, config } = line;
        (1..=count).map(move |number| Node {
            name: if name.is_empty() || count == 1 { name.clone() } else { format!("{name}-{number}") },
            control_plane,
            zone,
            dual_stack,
            later,
            config: config.clone(),
        })
    });
    Ok(nodes.collect())
}

/// Reads a table of round trips.
pub(super) fn round_trips<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Vec<u32>>, D::Error> {
    let rows = Vec::<Vec<RoundTrip>>::deserialize(deserializer)?;
    Ok(rows.into_iter().map(|row| row.into_iter().map(|trip| trip.0).collect()).collect())
}

/// A round trip between two zones.
struct RoundTrip(u32);

impl<'de> Deserialize<'de> for RoundTrip {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<RoundTrip, D::Error> {
        struct Reader;

        impl Visitor<'_> for Reader {
            type Value = RoundTrip;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a round trip in whole milliseconds, such as 10")
            }

            fn visit_u64<E: Error>(self, ms: u64) -> Result<RoundTrip, E> {
                u32::try_from(ms).map(RoundTrip).map_err(|_| E::custom(format!("{ms} ms are no round trip")))
            }

            fn visit_f64<E: Error>(self, ms: f64) -> Result<RoundTrip, E> {
                Err(E::custom(format!("a round trip takes whole milliseconds, not {ms}")))
            }
        }

        deserializer.deserialize_any(Reader)
    }
}

/// Reads one name or a list of names.
pub(super) fn who<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Who, D::Error> {
    struct Names;

    impl<'de> Visitor<'de> for Names {
        type Value = Who;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a node's name or a list of names")
        }

        fn visit_str<E: Error>(self, name: &str) -> Result<Who, E> {
            Ok(vec![name.to_owned()])
        }

        fn visit_seq<A: serde::de::SeqAccess<'de>>(self, names: A) -> Result<Who, A::Error> {
            Who::deserialize(serde::de::value::SeqAccessDeserializer::new(names))
        }
    }

    deserializer.deserialize_any(Names)
}

impl<'de> Deserialize<'de> for Step {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Step, D::Error> {
        deserializer.deserialize_map(StepReader)
    }
}

struct StepReader;

impl<'de> Visitor<'de> for StepReader {
    type Value = Step;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a step: `at`, `lasts` if it ends, and what happens")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Step, A::Error> {
        let (mut at, mut lasts, mut what) = (None, None, None);
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "at" => at = Some(map.next_value::<Span>()?.0),
                "lasts" => lasts = map.next_value::<Option<Span>>()?.map(|span| span.0),
                _ if what.is_none() => what = Some(Fault::deserialize(Tagged { tag: key, map: &mut map })?),
                _ => return Err(A::Error::custom(format!("one thing happens in a step, and {key:?} is another"))),
            }
        }
        let at = at.ok_or_else(|| A::Error::custom("a step says when, such as `at: 10s`"))?;
        let what =
            what.ok_or_else(|| A::Error::custom("a step says what happens, such as `apiserver: {of: [cp-1], mode: hung}`"))?;
        Ok(Step { at, lasts, what })
    }
}

/// A variant whose name was read as a key, and whose content is that key's value. In place of `flatten`, which reads
/// everything before it understands anything, and so knows no lines and overlooks misspelt keys.
struct Tagged<'a, A> {
    tag: String,
    map: &'a mut A,
}

impl<'de, A: MapAccess<'de>> Deserializer<'de> for Tagged<'_, A> {
    type Error = A::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, A::Error> {
        visitor.visit_enum(self)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct newtype_struct
        seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

impl<'de, A: MapAccess<'de>> EnumAccess<'de> for Tagged<'_, A> {
    type Error = A::Error;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), A::Error> {
        let tag: StringDeserializer<A::Error> = self.tag.clone().into_deserializer();
        Ok((seed.deserialize(tag)?, self))
    }
}

impl<'de, A: MapAccess<'de>> VariantAccess<'de> for Tagged<'_, A> {
    type Error = A::Error;

    fn unit_variant(self) -> Result<(), A::Error> {
        self.map.next_value::<Option<IgnoredAny>>().map(drop)
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, A::Error> {
        self.map.next_value_seed(seed)
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, A::Error> {
        self.map.next_value_seed(Content(visitor))
    }

    fn struct_variant<V: Visitor<'de>>(self, _: &'static [&'static str], visitor: V) -> Result<V::Value, A::Error> {
        self.map.next_value_seed(Content(visitor))
    }
}

struct Content<V>(V);

impl<'de, V: Visitor<'de>> DeserializeSeed<'de> for Content<V> {
    type Value = V::Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        deserializer.deserialize_any(self.0)
    }
}
