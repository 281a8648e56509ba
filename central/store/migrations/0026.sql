-- What selects nodes beside their names, as one text in the order of the keys: 'gpu,model=h100'.
ALTER TABLE nodes ADD COLUMN labels TEXT NOT NULL DEFAULT '';
