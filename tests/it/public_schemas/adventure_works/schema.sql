CREATE DOMAIN "Flag" boolean NOT NULL;
CREATE DOMAIN "Name" varchar(50) NULL;
CREATE DOMAIN "NameStyle" boolean NOT NULL;
CREATE DOMAIN "OrderNumber" varchar(25) NULL;
CREATE SCHEMA person;
CREATE SCHEMA production;
CREATE SCHEMA purchasing;
CREATE SCHEMA sales;
CREATE TABLE person.businessentity (businessentityid serial PRIMARY KEY, rowguid uuid NOT NULL DEFAULT gen_random_uuid(), modifieddate timestamp NOT NULL DEFAULT now());
CREATE TABLE person.person (
    businessentityid int PRIMARY KEY REFERENCES person.businessentity, persontype char(2) NOT NULL, namestyle "NameStyle" NOT NULL DEFAULT false,
    title varchar(8), firstname "Name" NOT NULL, middlename "Name", lastname "Name" NOT NULL, suffix varchar(10),
    emailpromotion int NOT NULL DEFAULT 0, demographics xml, rowguid uuid NOT NULL DEFAULT gen_random_uuid(),
    modifieddate timestamp NOT NULL DEFAULT now(), CONSTRAINT "CK_Person_EmailPromotion" CHECK (emailpromotion BETWEEN 0 AND 2),
    CONSTRAINT "CK_Person_PersonType" CHECK (persontype IS NULL OR upper(persontype) IN ('SC', 'VC', 'IN', 'EM', 'SP', 'GC')));
CREATE TABLE person.emailaddress (
    businessentityid int NOT NULL REFERENCES person.person, emailaddressid serial, emailaddress varchar(50),
    rowguid uuid NOT NULL DEFAULT gen_random_uuid(), modifieddate timestamp NOT NULL DEFAULT now(), PRIMARY KEY (businessentityid, emailaddressid));
CREATE TABLE person.stateprovince (
    stateprovinceid serial PRIMARY KEY, stateprovincecode char(3) NOT NULL, countryregioncode varchar(3) NOT NULL, name "Name" NOT NULL);
CREATE TABLE person.address (
    addressid serial PRIMARY KEY, addressline1 varchar(60) NOT NULL, addressline2 varchar(60), city varchar(30) NOT NULL,
    stateprovinceid int NOT NULL REFERENCES person.stateprovince, postalcode varchar(15) NOT NULL,
    rowguid uuid NOT NULL DEFAULT gen_random_uuid(), modifieddate timestamp NOT NULL DEFAULT now());
CREATE TABLE purchasing.shipmethod (
    shipmethodid serial PRIMARY KEY, name "Name" NOT NULL, shipbase numeric NOT NULL DEFAULT 0, rowguid uuid NOT NULL DEFAULT gen_random_uuid());
CREATE TABLE production.product (
    productid serial PRIMARY KEY, name "Name" NOT NULL, productnumber varchar(25) NOT NULL, listprice numeric NOT NULL,
    sellstartdate timestamp NOT NULL, CONSTRAINT "CK_Product_ListPrice" CHECK (listprice >= 0));
CREATE TABLE sales.salesterritory (territoryid serial PRIMARY KEY, name "Name" NOT NULL, countryregioncode varchar(3) NOT NULL);
CREATE TABLE sales.specialofferproduct (
    specialofferid int NOT NULL, productid int NOT NULL REFERENCES production.product, rowguid uuid NOT NULL DEFAULT gen_random_uuid(),
    PRIMARY KEY (specialofferid, productid));
CREATE TABLE sales.customer (
    customerid serial PRIMARY KEY, personid int REFERENCES person.person, storeid int, territoryid int REFERENCES sales.salesterritory,
    rowguid uuid NOT NULL DEFAULT gen_random_uuid(), modifieddate timestamp NOT NULL DEFAULT now());
CREATE TABLE sales.salesorderheader (
    salesorderid serial PRIMARY KEY, revisionnumber smallint NOT NULL DEFAULT 0, orderdate timestamp NOT NULL DEFAULT now(),
    duedate timestamp NOT NULL, shipdate timestamp, status smallint NOT NULL DEFAULT 5, onlineorderflag "Flag" NOT NULL DEFAULT true,
    purchaseordernumber "OrderNumber", customerid int NOT NULL REFERENCES sales.customer, territoryid int REFERENCES sales.salesterritory,
    billtoaddressid int NOT NULL REFERENCES person.address, shiptoaddressid int NOT NULL REFERENCES person.address,
    shipmethodid int NOT NULL REFERENCES purchasing.shipmethod, subtotal numeric NOT NULL DEFAULT 0.00, taxamt numeric NOT NULL DEFAULT 0.00,
    totaldue numeric, rowguid uuid NOT NULL DEFAULT gen_random_uuid(), modifieddate timestamp NOT NULL DEFAULT now(),
    CONSTRAINT "CK_SalesOrderHeader_DueDate" CHECK (duedate >= orderdate), CONSTRAINT "CK_SalesOrderHeader_Status" CHECK (status BETWEEN 0 AND 8));
CREATE TABLE sales.salesorderdetail (
    salesorderid int NOT NULL REFERENCES sales.salesorderheader ON DELETE CASCADE, salesorderdetailid serial, carriertrackingnumber varchar(25),
    orderqty smallint NOT NULL, productid int NOT NULL, specialofferid int NOT NULL, unitprice numeric NOT NULL,
    unitpricediscount numeric NOT NULL DEFAULT 0.0, rowguid uuid NOT NULL DEFAULT gen_random_uuid(), modifieddate timestamp NOT NULL DEFAULT now(),
    PRIMARY KEY (salesorderid, salesorderdetailid),
    FOREIGN KEY (specialofferid, productid) REFERENCES sales.specialofferproduct (specialofferid, productid),
    CONSTRAINT "CK_SalesOrderDetail_OrderQty" CHECK (orderqty > 0));
INSERT INTO person.stateprovince (stateprovincecode, countryregioncode, name) VALUES ('WA', 'US', 'Washington'), ('BY', 'DE', 'Bayern');
INSERT INTO purchasing.shipmethod (name) VALUES ('XRQ - TRUCK GROUND'), ('CARGO TRANSPORT 5');
INSERT INTO production.product (name, productnumber, listprice, sellstartdate) VALUES ('Road Bike', 'BK-R50', 782.99, '2011-05-31'), ('Helmet', 'HL-U5', 34.99, '2011-05-31');
INSERT INTO sales.salesterritory (name, countryregioncode) VALUES ('Northwest', 'US'), ('Germany', 'DE');
INSERT INTO sales.specialofferproduct (specialofferid, productid) VALUES (1, 1), (1, 2);
INSERT INTO person.businessentity DEFAULT VALUES;
INSERT INTO person.person (businessentityid, persontype, firstname, lastname) VALUES (1, 'EM', 'Ken', 'Sanchez');
