"""What fields are called on forms and in tables, in English and on bilingual forms."""

FIELDS = (
    "carrier", "pol", "pod", "etd", "shipper", "consignee", "container", "packages", "kind", "goods", "weight", "unit",
    "hazard", "un", "imo",
)  # fmt: skip
Labels = dict[str, tuple[str, ...]]


def _labels(text: str) -> Labels:
    """From ``field: label, label`` for each field; a line that begins with a blank goes on with the one before."""
    rows = (line.split(":", 1) for line in text.strip().replace("\n ", " ").splitlines())
    return {field.strip(): tuple(label.strip() for label in labels.split(",")) for field, labels in rows}


SEEN_ENGLISH = _labels("""
carrier: Carrier, Line, Shipping line, SSL, Ocean carrier, Carrier name, Steamship line, SS Line, Liner,
 Vessel operator
pol: POL, Port of loading, Load port, From, Loading port, Origin, Origin port, P.O.L., Loading, Port of load.,
 PORT LOAD, POL (load), Loaded at, Ex port
pod: POD, Port of discharge, Disch. port, To, Discharge port, Destination, Dest. port, P.O.D., Discharging,
 Port of disch., PORT DISCH, POD (discharge), Discharged at, Unloading port
etd: ETD, Sailing, Departure, ETS, Date, E.T.D., Sailing date, Dep. date, Est. departure, Departs, Sails, ETD
 date, Expected sailing
shipper: Shipper, Shpr, SHPR, Shipper name, Exporter, Sender, Seller, Consignor, Supplier, Shipper/Exporter,
 Shpr., Actual shipper, Shipped by, Sold by, Exported by, Sent by, Supplied by, Vendor, Manufacturer
consignee: Consignee, Cnee, CNEE, Receiver, Consignee name, Buyer, Importer, Consigned to, Customer, Cons.,
 Final consignee, Cnee., Ship to, Sold to, Deliver to, Imported by, Received by, Bought by, Recipient, Purchaser
container: Cntr, Container, Cntr no, Equipment, Container no., CTR#, Cntr no., Cont. no, Equip., Unit no, Container nr
packages: Pkgs, Packages, Qty, No. of pkgs, Quantity, Pieces, Colli, Number, Count, Pcs, Quantity/Kind
kind: Type, Kind, Pack, Packing, Package type, Pkg type, Packaging
goods: Goods, Description, Commodity, Cargo, Descr. of goods, Product, Contents, Description of goods,
 Material, Article
weight: Weight, GW, Gross wt, Wt, Gross weight, G.W., Cargo wt, Kilos, Gross, Gr. weight
unit: Unit, UOM, Wt unit, Units
hazard: DG, IMO, Hazard, Dangerous goods, DG info, IMDG, Hazmat, Haz, DGR, IMO/UN
un: UN, UN no, UN#, UNNO, UN number
imo: IMO, Class, Cl., IMO class, IMDG class, DG class
""")

UNSEEN_ENGLISH = _labels("""
carrier: Carrier line, Booked with, Ocean line, Carrying line
pol: Port of shipment, Load at, Place of loading, Loads in
pod: Discharge at, Port of destination, Place of discharge, Discharges in
etd: Departure date, Date of departure, Date of sailing, Sail on, Planned departure
shipper: Shipping party, Name of shipper, Exporting company, Shipper details
consignee: Receiving party, Name of consignee, Importing company, Consignee details
container: Container ID, Box no., Container number, Container reference
packages: Package count, Total packages, How many
kind: Kind of packages, Pack type, Packed in
goods: Cargo description, Nature of goods, Goods shipped
weight: Total weight, Weight gross, Weighs
unit: Weight in, Measured in
hazard: Hazardous cargo, DG details, Danger
un: UN code, UN nr
imo: Risk class, Class of danger
""")

SEEN_LANGUAGES = (
    _labels("""
carrier: Reederei, Linie, Carrier
pol: Ladehafen, Verladehafen, Abgangshafen
pod: Löschhafen, Bestimmungshafen, Zielhafen, Entladehafen
etd: Abfahrt, Abfahrtsdatum, Auslauf, ETD
shipper: Absender, Verlader, Versender, Exporteur, Ablader
consignee: Empfänger, Käufer, Importeur, Kunde
container: Container, Containernummer, Container-Nr.
packages: Anzahl, Packstücke, Menge, Kolli
kind: Verpackung, Art, Verpackungsart
goods: Ware, Warenbezeichnung, Güter, Ladung
weight: Gewicht, Bruttogewicht, Brutto
unit: Einheit
hazard: Gefahrgut, Gefahrgutangaben
un: UN-Nr., UN-Nummer
imo: Klasse, Gefahrklasse
"""),
    _labels("""
carrier: Compagnie, Armateur, Compagnie maritime, Transporteur maritime
pol: Port de chargement, Chargement, Port d'embarquement, Départ de
pod: Port de déchargement, Déchargement, Port de destination, Port d'arrivée
etd: Date de départ, Départ, ETD, Départ prévu, Appareillage
shipper: Expéditeur, Chargeur, Exportateur, Vendeur
consignee: Destinataire, Réceptionnaire, Importateur, Acheteur, Client
container: Conteneur, Conteneur n°, N° conteneur, TC
packages: Colis, Nombre de colis, Quantité, Nb colis
kind: Emballage, Type d'emballage
goods: Marchandise, Désignation, Nature de la marchandise, Produit
weight: Poids, Poids brut
unit: Unité
hazard: Matière dangereuse, Marchandises dangereuses, Mat. dangereuse
un: N° ONU, ONU
imo: Classe
"""),
    _labels("""
carrier: Naviera, Línea, Línea naviera, Transportista
pol: Puerto de carga, Puerto de embarque, Puerto de origen, Origen
pod: Puerto de descarga, Puerto de destino, Destino
etd: Salida, Fecha de salida, Zarpe, Fecha de zarpe
shipper: Embarcador, Expedidor, Exportador, Remitente, Vendedor
consignee: Consignatario, Destinatario, Importador, Comprador
container: Contenedor, N.º contenedor, Contenedor nº
packages: Bultos, Cantidad, Nº de bultos
kind: Embalaje, Tipo de bulto
goods: Mercancía, Descripción, Producto
weight: Peso, Peso bruto
unit: Unidad
hazard: Mercancía peligrosa, IMO
un: Nº ONU, ONU
imo: Clase
"""),
    _labels("""
carrier: Compagnia, Linea, Compagnia di navigazione, Vettore
pol: Porto di carico, Porto di imbarco, Porto di partenza
pod: Porto di scarico, Porto di sbarco, Porto di arrivo, Destinazione
etd: Partenza, Data di partenza, Partenza prevista
shipper: Mittente, Caricatore, Esportatore, Speditore
consignee: Ricevitore, Importatore, Cliente
container: Contenitore, Cont., N. container
packages: Colli, Quantità, N. colli
kind: Imballo, Tipo di imballo
goods: Merce, Descrizione merce, Prodotto
weight: Peso lordo, Lordo
unit: Unità
hazard: Merce pericolosa, ADR/IMO
un: N. ONU
imo: Classe
"""),
    _labels("""
carrier: Rederij, Lijn, Maatschappij
pol: Laadhaven, Haven van vertrek, Haven van lading
pod: Loshaven, Haven van bestemming, Bestemming
etd: Vertrek, Vertrekdatum, Afvaart
shipper: Afzender, Verlader, Exporteur, Verkoper
consignee: Ontvanger, Geadresseerde, Koper
container: Container, Containernr.
packages: Aantal, Colli, Aantal colli
kind: Verpakking, Soort
goods: Goederen, Omschrijving, Lading
weight: Gewicht, Brutogewicht, Bruto
unit: Eenheid
hazard: Gevaarlijke stof, Gevaarlijke goederen
un: UN-nr.
imo: Klasse
"""),
)

UNSEEN_LANGUAGES = (
    _labels("""
carrier: Armador, Companhia marítima
pol: Porto de embarque, Porto de origem
pod: Porto de desembarque, Porto de destino
etd: Saída prevista, Data de saída
shipper: Carregador, Fornecedor
consignee: Recebedor, Comprador final
container: Contêiner, Nº do contêiner
packages: Quantidade, Número de volumes
kind: Embalagem
goods: Mercadoria, Descrição da carga
weight: Peso total, Peso da carga
unit: Unidade de peso
hazard: Carga perigosa
un: Número ONU
imo: Classe de risco
"""),
)
