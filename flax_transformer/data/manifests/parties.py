"""How sentences say who ships to whom."""

from collections.abc import Mapping

from flax_transformer.data.manifests.draw import Draw
from flax_transformer.data.manifests.phrasing import Sender

# Both parties in one sentence.
_TOGETHER = (
    "Shipper is {shipper}, cnee {consignee}.", "{shipper} ships to {consignee}.",
    "Consignee: {consignee}. Shipper: {shipper}.", "On behalf of {shipper} for {consignee}.",
    "Shipper: {shipper}\nConsignee: {consignee}",
    "shpr {shipper}, cnee {consignee}", "The shipper is {shipper} and the consignee {consignee}.",
    "We are {shipper}; our customer is {consignee}.", "Shipper {shipper} / Consignee {consignee}",
    "seller {shipper}, buyer {consignee}.",
    "Cargo of {shipper} goes to {consignee}.", "Sender is {shipper}, receiver {consignee}.",
    "consignee {consignee}, shipper {shipper}.", "Goods are sold by {shipper} to {consignee}.",
    "Exporter {shipper}, importer {consignee}.",
    "SHPR: {shipper}\nCNEE: {consignee}", "Deliver to {consignee}, shipped by {shipper}.",
    "{consignee} is the consignee, {shipper} the shipper.", "a/c {shipper}, notify and consignee {consignee}.",
    "supplier: {shipper}; receiver: {consignee}",
    "Our client {shipper} sends this to {consignee}.", "Buyer: {consignee}\nSeller: {shipper}",
    "{shipper} -> {consignee}", "This is for {consignee}, from {shipper}.",
    "B/L shipper {shipper}, B/L consignee {consignee}.",
)  # fmt: skip
# One party each, or one as the subject of what it does for the other.
_SHIPPERS = (
    "shipper is {}", "the shipper is {}", "the shipper will be {}", "shipper: {}", "shpr = {}", "as shipper we have {}",
    "please put {} as shipper", "{} is the shipper", "{} acts as shipper", "{} is the exporter",
    "exporter of record: {}",
    "sold by {}", "the goods come from {}", "it is shipped by {}", "shipper in the documents: {}",
    "the cargo is from {}", "{} is our supplier", "{} are the sellers", "the seller is {}", "manufactured by {}",
    "the sender is {}", "this is a shipment of {}", "we act for {}", "booking on behalf of {}",
    "we are booking for our customer {}, who is shipping", "bill of lading shipper: {}", "account of shipper {}",
    "the vendor this time is {}", "we, {}, are shipping this",
)  # fmt: skip
_CONSIGNEES = (
    "consignee is {}", "the consignee is {}", "the consignee will be {}", "consignee: {}", "cnee = {}",
    "it is consigned to {}", "please put {} as consignee", "{} is the consignee", "{} is the importer",
    "{} will receive it", "it is for {}", "the goods are for {}", "the buyer is {}", "bought by {}",
    "the receiver is {}",
    "deliver to {}", "importer of record: {}", "consignee in the documents: {}", "to the order of {}",
    "{} has bought it", "they go to {}", "{} is the customer", "the cargo is destined for {}",
    "bill of lading consignee: {}", "account of consignee {}", "the purchaser this time is {}", "ship to {}",
)  # fmt: skip
# What a party is called, and how that is said.
_SHIPPER_ROLES = (
    "shipper", "shipper", "exporter", "seller", "sender", "supplier", "consignor", "vendor", "manufacturer", "producer",
)  # fmt: skip
_CONSIGNEE_ROLES = (
    "consignee", "consignee", "importer", "buyer", "receiver", "customer", "recipient", "purchaser", "client",
    "end user",
)  # fmt: skip
_ROLES = (
    "the ROLE is {}", "ROLE = {}", "{} is the ROLE", "{} is our ROLE", "{} as ROLE",
    "as ROLE please enter {}", "ROLE remains {}", "for the ROLE use {}", "our ROLE {}",
    "the ROLE, {}", "{} (ROLE)", "ROLE in this case: {}", "{} acts as the ROLE",
    "ROLE in the bill of lading: {}", "{}, who is the ROLE", "ROLE of the goods is {}",
    "the ROLE is called {}", "this time the ROLE is {}", "you know the ROLE: {}", "ROLE {}",
)  # fmt: skip
# What the goods do or what is done to them, as far as it tells a party.
_CARGO = (
    "the cargo", "the goods", "it", "this", "this lot", "the shipment", "the consignment", "everything", "the load",
    "this order", "the material", "all of it", "the freight", "the container", "they",
)  # fmt: skip
_ORIGINS = (
    "is owned by {}", "is coming from {}", "originates with {}", "was ordered from {}", "is being sent by {}",
    "was produced by {}", "has been bought from {}", "is property of {}", "leaves the works of {}", "is invoiced by {}",
    "was packed by {}", "is handed over by {}", "is collected from {}", "is on account of {}", "was made at {}",
    "is offered by {}", "was loaded by {}", "is shipped out by {}", "is supplied by {}", "was booked by {}",
    "is sold under a contract with {}", "stands at {}", "is dispatched by {}", "was prepared by {}", "starts at {}",
)  # fmt: skip
_GOALS = (
    "is meant for {}", "heads to {}", "has been promised to {}", "is awaited by {}", "is invoiced to {}",
    "was ordered by {}", "is handed to {}", "is paid by {}", "ends up with {}", "is addressed to {}",
    "is due at {}", "is intended for {}", "is to be released to {}", "must reach {}", "is delivered to {}",
    "will be collected by {}", "was purchased by {}", "is needed by {}", "travels to {}", "is for the account of {}",
    "gets unloaded at {}", "arrives at {}", "is received by {}", "shall be sent to {}", "is reserved for {}",
)  # fmt: skip
_DEALS = (
    "{} ships to {}", "{} is shipping this to {}", "{} delivers to {}", "{} sends the goods to {}", "{} exports to {}",
    "{} sells to {}", "{} supplies {}", "{} has an order from {}", "{} has made this for {}", "{} consigns it to {}",
    "{} is the seller, {} the buyer", "{} as shipper, {} as consignee", "{} to {}", "{} for {}",
    "{} dispatches the cargo to {}", "{} is exporting to {}", "{} and their customer {}", "{} has a contract with {}",
    "{} fills an order of {}", "{} forwards the cargo to {}",
)  # fmt: skip
_BEFORE_NAMES = (
    *("",) * 12, "Messrs. ", "the company ", "our client ", "our customer ", "our friends ", "the firm ",
    "our supplier ",
    "our good client ", "our partner ", "our sister company ", "a company called ", "as usual ", "again ", "this time ",
)  # fmt: skip
_BEFORE_SENTENCES = (*("",) * 8, "Please note: ", "Note that ", "As you know, ", "For the B/L: ", "Parties: ", "FYI: ")


def parties(sender: Sender, header: Mapping[str, str]) -> str:
    """A sentence or two with both parties."""
    draw = sender.draw
    if draw.chance(0.4):
        return sender.say(draw.pick(_TOGETHER), **header)
    shipper, consignee = (draw.pick(_BEFORE_NAMES) + f"{{{party}}}" for party in ("shipper", "consignee"))
    if draw.chance(0.35):
        said = [draw.pick(_DEALS).format(shipper, consignee)]
    else:
        said = [
            _one(draw, _SHIPPERS, _SHIPPER_ROLES, _ORIGINS).format(shipper),
            _one(draw, _CONSIGNEES, _CONSIGNEE_ROLES, _GOALS).format(consignee),
        ]
        said = said if draw.chance(0.6) else said[::-1]
    between = draw.pick((". ", ", ", "; ", ", and ", " and ", ".\n", "\n"))
    end = draw.pick((".", ".", ".", "", ";", "!"))
    said = [draw.pick(_BEFORE_SENTENCES) + said[0], *said[1:]]
    said = [_capital(one) for one in said] if "." in between and draw.chance(0.8) else said
    return sender.say(between.join(said) + end, **header)


def _one(draw: Draw, whole: tuple[str, ...], roles: tuple[str, ...], verbs: tuple[str, ...]) -> str:
    """A sentence on one party: as it stands in the list, or put together of a role or of what the goods do."""
    way = draw.below(5)
    if way < 2:
        return draw.pick(whole)
    if way < 4:
        return draw.pick(_ROLES).replace("ROLE", draw.pick(roles))
    return f"{draw.pick(_CARGO)} {draw.pick(verbs)}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
